//! `gemma4-wgpu inspect`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use crate::api::open::DEFAULT_CONTEXT;
use crate::checkpoint::{Checkpoint, UnusedTensors};
use crate::cli::{Exit, memory::MemoryReport, model::ModelArgs};
use crate::error::{Error, Result};
use crate::model::config::{Architecture, AttentionKind, ModelConfig};
use crate::model::source::TensorSource;
use crate::model::tensors::{rows_read, tensor_kind};
use crate::model::weights::{self, PlannedTensor};
use crate::quant::PackFormat;

/// Show the contents of a checkpoint, and whether it fits on the device
///
/// Shows architecture, formats and sizes for each kind of tensor. Shows also the memory that the
/// model takes with a context of --ctx positions. Reads no weights except a stored head and the
/// embedding, to compare them.
#[derive(Args)]
pub struct InspectArgs {
    /// Checkpoint, as in --model
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    path: Option<PathBuf>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// The whole report. Sizes are in bytes.
#[derive(Serialize)]
struct Report {
    description: String,
    file_bytes: u64,
    architecture: &'static str,
    layers: usize,
    sliding_layers: usize,
    window: Option<usize>,
    /// Layers that use other layers' keys and values.
    sharing_layers: usize,
    hidden_size: usize,
    /// Elements of each layer's per-layer embedding.
    per_layer_input: Option<usize>,
    experts: Option<ExpertSizes>,
    vocab_size: usize,
    max_position_embeddings: usize,
    tied_embeddings: bool,
    parameters: u64,
    chat_template: bool,
    /// Matrices that stay floats on the device; `None` if there are none.
    float_matrices: Option<FloatMatrices>,
    /// Tensors of the files that the model ignores.
    not_used: Vec<NotUsed>,
    kinds: Vec<Kind>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tensors: Vec<Tensor>,
    memory: MemoryReport,
}

/// The experts of every layer.
#[derive(Serialize)]
struct ExpertSizes {
    count: usize,
    /// Experts of one token.
    top_k: usize,
    intermediate_size: usize,
}

/// The cost of float matrices.
#[derive(Serialize)]
struct FloatMatrices {
    /// Names without layer numbers. Each is followed by the layers that have it, if some do not.
    names: Vec<String>,
    tensors: usize,
    /// Bytes that a token reads of these matrices, and of all matrices.
    token_bytes: u64,
    all_token_bytes: u64,
    /// Bytes that a token would read of them in int8.
    int8_token_bytes: u64,
}

#[derive(Serialize)]
struct NotUsed {
    name: String,
    tensors: usize,
}

/// Tensors of one name in all layers that have the same storage and device format.
#[derive(Serialize, Clone)]
struct Kind {
    name: String,
    stored: String,
    device: String,
    tensors: usize,
    parameters: u64,
    stored_bytes: u64,
    device_bytes: u64,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    stored: String,
    device: String,
    stored_bytes: u64,
    device_bytes: u64,
}

impl Tensor {
    fn new(tensor: &PlannedTensor) -> Tensor {
        let info = &tensor.info;
        let (device, device_bytes) = match (tensor.format, info.shape.as_slice()) {
            (Some(format), &[rows, cols]) => {
                (format.to_string(), (rows * format.row_bytes(cols)) as u64)
            }
            _ => ("f32".into(), 4 * info.elements() as u64),
        };
        Tensor {
            name: tensor.name.clone(),
            shape: info.shape.clone(),
            stored: info.dtype.to_string(),
            device,
            stored_bytes: info.bytes() as u64,
            device_bytes,
        }
    }
}

pub fn run(args: &InspectArgs) -> Result<(), Exit> {
    let mut model = args.model.clone();
    if args.path.is_some() {
        model.model.clone_from(&args.path);
    }
    let checkpoint = model.open()?;
    let report = report(&model, &checkpoint, args.tensors)?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&report).map_err(|error| {
            Error::Input(format!("the report cannot be written as JSON: {error}"))
        })?,
        false => describe(&report),
    };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Exit::from_stdout)
}

fn report(model: &ModelArgs, checkpoint: &Checkpoint, with_tensors: bool) -> Result<Report> {
    let config = checkpoint.config();
    let planned = weights::planned_tensors(checkpoint, model.quantize())?;
    let tensors: Vec<Tensor> = planned.iter().map(Tensor::new).collect();
    let sliding: Vec<usize> = windows(config).collect();
    let context_length = model.context_length(checkpoint, DEFAULT_CONTEXT)?;
    Ok(Report {
        description: checkpoint.description().to_owned(),
        file_bytes: checkpoint.file_bytes(),
        architecture: match config.architecture {
            Architecture::Gemma3 => "Gemma 3",
            Architecture::Gemma4 => "Gemma 4",
        },
        layers: config.layers.len(),
        sliding_layers: sliding.len(),
        window: sliding.first().copied(),
        sharing_layers: config.layers.len() - config.cached_layers().len(),
        hidden_size: config.hidden_size,
        per_layer_input: config.per_layer_input.map(|input| input.size),
        experts: config.experts().map(|experts| ExpertSizes {
            count: experts.count,
            top_k: experts.top_k,
            intermediate_size: experts.intermediate_size,
        }),
        vocab_size: config.vocab_size,
        max_position_embeddings: config.max_position_embeddings,
        tied_embeddings: config.tie_word_embeddings,
        parameters: planned.iter().map(|tensor| tensor.info.elements() as u64).sum(),
        chat_template: checkpoint.text_assets()?.chat_template.is_some(),
        float_matrices: float_matrices(config, &planned),
        not_used: { checkpoint.unused() }
            .into_iter()
            .map(|UnusedTensors { name, tensors }| NotUsed { name, tensors })
            .collect(),
        kinds: kinds(&tensors),
        tensors: if with_tensors { tensors } else { Vec::new() },
        memory: model.memory(checkpoint, context_length)?.report()?,
    })
}

fn windows(config: &ModelConfig) -> impl Iterator<Item = usize> {
    config.layers.iter().filter_map(|layer| match layer.attention {
        AttentionKind::Sliding { window } => Some(window),
        AttentionKind::Full => None,
    })
}

fn float_matrices(config: &ModelConfig, planned: &[PlannedTensor]) -> Option<FloatMatrices> {
    let mut found = FloatMatrices {
        names: Vec::new(),
        tensors: 0,
        token_bytes: 0,
        all_token_bytes: 0,
        int8_token_bytes: 0,
    };
    let mut layers = BTreeMap::<&str, Vec<usize>>::new();
    for tensor in planned {
        let (Some(format), &[rows, cols]) = (tensor.format, tensor.info.shape.as_slice()) else {
            continue;
        };
        let rows = rows_read(config, tensor.role, rows);
        let bytes = (rows * format.row_bytes(cols)) as u64;
        found.all_token_bytes += bytes;
        if format.group().is_none() {
            found.tensors += 1;
            found.token_bytes += bytes;
            found.int8_token_bytes += (rows * PackFormat::INT8.row_bytes(cols)) as u64;
            layers.entry(tensor_kind(&tensor.name)).or_default().extend(layer_number(&tensor.name));
        }
    }
    let of_kind = |(kind, layers): (&str, Vec<usize>)| match layers.as_slice() {
        [] => kind.to_owned(),
        layers if layers.len() == config.layers.len() => format!("{kind} of all layers"),
        [layer] => format!("{kind} of layer {layer}"),
        layers if layers.len() > 6 => format!("{kind} of {} layers", layers.len()),
        layers => {
            let numbers: Vec<String> = layers.iter().map(usize::to_string).collect();
            format!("{kind} of layers {}", numbers.join(", "))
        }
    };
    found.names.extend(layers.into_iter().map(of_kind));
    (found.tensors > 0).then_some(found)
}

fn layer_number(name: &str) -> Option<usize> {
    name.strip_prefix("layers.")?.split('.').next()?.parse().ok()
}

fn kinds(tensors: &[Tensor]) -> Vec<Kind> {
    let mut places = BTreeMap::new();
    let mut kinds: Vec<Kind> = Vec::new();
    for tensor in tensors {
        let key = (tensor_kind(&tensor.name), tensor.stored.as_str(), tensor.device.as_str());
        let place = *places.entry(key).or_insert_with(|| {
            kinds.push(Kind {
                name: tensor_kind(&tensor.name).to_owned(),
                stored: tensor.stored.clone(),
                device: tensor.device.clone(),
                tensors: 0,
                parameters: 0,
                stored_bytes: 0,
                device_bytes: 0,
            });
            kinds.len() - 1
        });
        let kind = &mut kinds[place];
        kind.tensors += 1;
        kind.parameters += tensor.shape.iter().product::<usize>() as u64;
        kind.stored_bytes += tensor.stored_bytes;
        kind.device_bytes += tensor.device_bytes;
    }
    kinds
}

/// The report as text.
fn describe(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<15} {value}"); // a String takes everything
    };
    let r = report;
    line("model", r.description.clone());
    line("files", BinaryBytes(r.file_bytes).to_string());
    let attention = match r.window {
        Some(window) => {
            format!(
                "{} sliding over {window} positions, {} full",
                r.sliding_layers,
                r.layers - r.sliding_layers
            )
        }
        None => "all full".into(),
    };
    let shared = match r.sharing_layers {
        0 => String::new(),
        count => format!(", {count} with others' keys and values"),
    };
    let per_layer = r.per_layer_input.map(|size| format!(", {size} a layer")).unwrap_or_default();
    let experts = r.experts.as_ref().map_or(String::new(), |experts| {
        format!(", {} of {} experts a token", experts.top_k, experts.count)
    });
    line(
        "architecture",
        format!(
            "{}, {} layers ({attention}{shared}), hidden size {}{per_layer}{experts}",
            r.architecture, r.layers, r.hidden_size
        ),
    );
    line(
        "vocabulary",
        format!(
            "{} tokens, embeddings {}",
            r.vocab_size,
            if r.tied_embeddings { "tied" } else { "not tied" }
        ),
    );
    line("positions", r.max_position_embeddings.to_string());
    line("parameters", HumanCount(r.parameters).to_string());
    line("chat template", if r.chat_template { "present" } else { "none" }.into());
    if let Some(floats) = &r.float_matrices {
        line("full precision", describe_floats(floats));
    }
    if !r.not_used.is_empty() {
        let groups = r.not_used.iter().map(|group| match group.tensors {
            1 => group.name.clone(),
            count => format!("{} {count} tensors", group.name),
        });
        line("not used", groups.collect::<Vec<_>>().join(", "));
    }
    text += "\n";
    let name_width = r.kinds.iter().map(|kind| kind.name.len()).max().unwrap_or(0);
    let size = |bytes| BinaryBytes(bytes).to_string();
    let heads = ["count", "stored as", "on the device", "parameters", "size there"];
    let _ = writeln!(
        text,
        "{:name_width$}  {:>5}  {:<16} {:<16} {:>14}  {:>10}",
        "tensors", heads[0], heads[1], heads[2], heads[3], heads[4]
    );
    for kind in &r.kinds {
        let parameters = HumanCount(kind.parameters).to_string();
        let _ = writeln!(
            text,
            "{:name_width$}  {:>5}  {:<16} {:<16} {parameters:>14}  {:>10}",
            kind.name,
            kind.tensors,
            kind.stored,
            kind.device,
            size(kind.device_bytes)
        );
    }
    for tensor in &r.tensors {
        let shape = format!("{:?}", tensor.shape);
        let _ = write!(
            text,
            "\n{:<52} {shape:<18} {:<16} {}",
            tensor.name, tensor.stored, tensor.device
        );
    }
    text += if r.tensors.is_empty() { "\n" } else { "\n\n" };
    text + &describe_memory(&r.memory)
}

fn describe_floats(floats: &FloatMatrices) -> String {
    let size = |bytes| BinaryBytes(bytes).to_string();
    format!(
        "{} matrices stay as stored ({}): a token reads {} of them, of {} in all; \
         --quantize int8 makes that {}",
        floats.tensors,
        floats.names.join("; "),
        size(floats.token_bytes),
        size(floats.all_token_bytes),
        size(floats.int8_token_bytes)
    )
}

fn describe_memory(memory: &MemoryReport) -> String {
    let plan = &memory.plan;
    let mut text = format!("memory for {} positions on {}\n", plan.context_length, memory.device);
    let mut rows = vec![
        ("weights", plan.weight_bytes),
        ("KV, sliding", plan.kv_sliding_bytes),
        ("KV, full", plan.kv_full_bytes),
        ("scratch", plan.scratch_bytes),
        ("total", memory.total_bytes),
    ];
    rows.extend(memory.free_bytes.map(|free| ("free", free)));
    for (name, bytes) in rows {
        let _ = writeln!(text, "  {name:<13} {:>12}", BinaryBytes(bytes).to_string());
    }
    let _ = match memory.largest_context {
        Some(context) if memory.fits => writeln!(text, "fits; up to {context} positions would"),
        Some(context) => {
            writeln!(text, "does not fit; {context} positions would (--ctx {context})")
        }
        None => writeln!(text, "does not fit with any context"),
    };
    text
}
