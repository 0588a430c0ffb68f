//! `gemma4-wgpu quantize`

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::BinaryBytes;

use crate::checkpoint::Checkpoint;
use crate::cli::Exit;
use crate::cli::interrupt::{self, Work};
use crate::cli::model::own_cache;
use crate::cli::progress::byte_bar;
use crate::error::{Error, Result};
use crate::gpu::{self, DeviceOptions, Gpu};
use crate::hub;
use crate::model::weights;
use crate::quant::methods::Method;
use crate::quant::recipe::{Recipe, RecipeText};
use crate::quantize::{Job, SHARD_BYTES, Summary};

/// Write a packed int4 or int8 checkpoint of a full-precision one
///
/// The result loads faster and takes a quarter of the space. With the default recipe it computes
/// the same as the original, quantized while loading. Tensors are written one by one. After an
/// interruption the same command continues after the last complete file. At the end a table shows
/// the format of each kind of tensor.
#[derive(Args)]
pub struct QuantizeArgs {
    /// Hugging Face directory in f32, f16 or bf16
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,
    /// Directory to write to; it must be new or empty, or left by an interrupted run
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Formats of the tensors: default, int8, sensitive, hqq, mse_clip, or a TOML file of rules
    #[arg(long, value_name = "NAME|FILE")]
    recipe: Option<String>,
    /// Short for the recipes default and int8
    #[arg(long, value_enum, conflicts_with = "recipe")]
    quantize: Option<Precision>,
    /// Device that searches for scales by the method hqq (other methods run on the CPU). auto takes
    /// a GPU, or the CPU if there is none
    #[arg(long, value_enum, default_value_t)]
    backend: BackendKind,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// The formats of weights.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Precision {
    /// Layers in int4, embedding and lm_head in int8
    Int4,
    /// All matrices in int8
    Int8,
}

/// The device that searches for scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum BackendKind {
    #[default]
    Auto,
    Wgpu,
    Cpu,
}

impl BackendKind {
    /// The GPU, if the recipe needs one. A software adapter is not faster than the processor's
    /// cores. So it is only taken if the option is wgpu.
    fn open(self, recipe: &Recipe) -> Result<Option<Gpu>> {
        if self == BackendKind::Cpu || !recipe.has(Method::Hqq) {
            return Ok(None);
        }
        if self == BackendKind::Auto
            && !pollster::block_on(gpu::adapters()).iter().any(|facts| !facts.is_software())
        {
            return Ok(None);
        }
        let options =
            DeviceOptions { pipeline_cache: own_cache("pipelines"), ..Default::default() };
        pollster::block_on(Gpu::open(&options)).map(Some)
    }
}

impl QuantizeArgs {
    fn recipe(&self) -> Result<Recipe> {
        let name = match (&self.recipe, self.quantize) {
            (Some(name), _) => name,
            (None, Some(Precision::Int8)) => "int8",
            (None, _) => "default",
        };
        match Recipe::named(name) {
            Some(recipe) => Ok(recipe),
            None => read_recipe(Path::new(name)),
        }
    }
}

fn read_recipe(path: &Path) -> Result<Recipe> {
    let shown = path.display();
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Input(format!(
            "--recipe {shown}: no such file, and no recipe (those are {})",
            Recipe::NAMES.join(", ")
        )),
        _ => Error::Io { path: path.to_owned(), source: error },
    })?;
    let recipe: RecipeText = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| {
            1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count()
        });
        Error::Input(format!("--recipe {shown}, line {line}: {}", error.message()))
    })?;
    Recipe::new(&shown.to_string(), recipe.rules)
}

pub fn run(args: &QuantizeArgs) -> Result<(), Exit> {
    let recipe = args.recipe()?;
    let model = hub::resolve(&args.model)?;
    if !model.is_dir() {
        return Err(Error::Input(format!("{} is not a directory", model.display())).into());
    }
    let mut checkpoint = Checkpoint::open(&model)?;
    if !checkpoint.is_hugging_face() {
        let reason =
            format!("{} holds GGUF, which is quantized already and runs as it is", model.display());
        return Err(Error::Unsupported(reason).into());
    }
    checkpoint.copy_reads();
    let gpu = args.backend.open(&recipe)?;
    let bar = byte_bar("quantizing", weights::load_bytes(&checkpoint), args.quiet);
    interrupt::install()?;
    let work = Work::begin();
    let mut progress = |bytes| {
        bar.inc(bytes);
        !work.stopped()
    };
    let job = Job {
        source: &checkpoint,
        recipe: &recipe,
        assets: &model,
        output: &args.output,
        gpu: gpu.as_ref(),
        shard_bytes: SHARD_BYTES,
    };
    let written = pollster::block_on(job.run(&mut progress));
    bar.finish_and_clear();
    let summary = match written {
        Err(_) if work.stopped() => {
            if args.output.exists() {
                eprintln!(
                    "interrupted; the same command goes on after the files in {}",
                    args.output.display()
                );
            }
            return Err(Exit::Interrupted);
        }
        written => written?,
    };
    let text =
        format!("{}{}: {} bytes of weights", table(&summary), args.output.display(), summary.bytes);
    writeln!(io::stdout(), "{text}").map_err(Exit::from_stdout)
}

/// The format of each kind of tensor.
fn table(summary: &Summary) -> String {
    let width = summary.kinds.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  count   bits        size   RMS error\n", "tensors");
    for (name, kind) in &summary.kinds {
        let size = BinaryBytes(kind.bytes).to_string();
        let (count, bits, rms, relative) =
            (kind.tensors, kind.bits(), kind.rms_error(), 100.0 * kind.relative_error());
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:width$}  {count:>5}  {bits:>5.2}  {size:>10}  {rms:>10.3e} ({relative:.2}%)"
        );
    }
    text
}
