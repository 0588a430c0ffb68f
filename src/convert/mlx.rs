//! MLX's affine form: U32 words of integers in order, lowest bits first. Each group has a scale and
//! a bias. A weight is `scale·q + bias`, where q is at least 0.

use std::cmp::Reverse;
use std::ops::Range;

use half::bf16;
use serde_json::{Map, Value, json};

use crate::checkpoint::safetensors::writer::NewTensor;
use crate::convert::{float_name, mlx_config, new_tensor};
use crate::error::{Error, Result};
use crate::model::{
    config::{Experts, ModelConfig},
    source::TensorInfo,
    tensors::Role,
    weights::PlannedTensor,
};
use crate::quant::{Dtype, PackFormat, pack_rows};

/// A tensor to write: a part of some rows of the source's tensor.
#[derive(Clone)]
pub struct Piece {
    pub part: Part,
    /// `None` for all rows, and for vectors.
    rows: Option<Blocks>,
}

/// `rows` rows from `first` on, in every block of `of` rows.
#[derive(Clone, Copy)]
struct Blocks {
    first: usize,
    rows: usize,
    of: usize,
}

impl Piece {
    /// The ranges of rows that the piece takes from `count` rows, each of at most `most`.
    pub fn ranges(&self, count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
        let Blocks { first, rows, of } =
            self.rows.unwrap_or(Blocks { first: 0, rows: count, of: count });
        let blocks = (0..count).step_by(of.max(1));
        blocks.flat_map(move |block| {
            let (begin, end) = (block + first, block + first + rows);
            (begin..end).step_by(most).map(move |start| start..(start + most).min(end))
        })
    }
}

/// What a tensor to write has of a matrix.
#[derive(Clone, Copy)]
pub enum Part {
    /// Without a change.
    Plain,
    Integers,
    Scales,
    Biases,
}

/// The tensors of the new checkpoint.
pub struct Plan {
    /// In the order of writing.
    pub tensors: Vec<NewTensor>,
    /// The pieces that each tensor of the source becomes.
    pub pieces: Vec<Vec<Piece>>,
    /// Each quantized module.
    modules: Vec<(String, Setting)>,
}

/// mlx-lm's name for weights with a scale and an offset.
const MODE: &str = "affine";

/// Bits and group size of a module.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Setting {
    bits: u8,
    group: usize,
}

/// Where mlx-lm keeps the text model.
pub fn prefix(config: &Value) -> &'static str {
    if config.get("text_config").is_some() { "language_model." } else { "" }
}

/// The matrices of all experts into which `stored` of `rows` rows is cut, and their rows.
fn stacked(stored: &str, experts: Experts, rows: usize) -> Vec<(String, Blocks)> {
    let of = rows / experts.count;
    let named = |base: &str, matrix: &str| format!("{base}switch_glu.{matrix}_proj.weight");
    match stored.strip_suffix("gate_up_proj") {
        Some(base) => {
            let half = |first| Blocks { first, rows: of / 2, of };
            vec![(named(base, "gate"), half(0)), (named(base, "up"), half(of / 2))]
        }
        None => {
            let base = stored.strip_suffix("down_proj").unwrap_or(stored);
            vec![(named(base, "down"), Blocks { first: 0, rows: of, of })]
        }
    }
}

impl Plan {
    /// Errors: a matrix with a group size or a width that MLX lacks.
    pub fn new(tensors: &[PlannedTensor], config: &ModelConfig, prefix: &str) -> Result<Plan> {
        let mut plan = Plan { tensors: Vec::new(), pieces: Vec::new(), modules: Vec::new() };
        for tensor in tensors {
            let inner = if tensor.role == Role::OutputHead { "" } else { "model." };
            let stored = format!("{prefix}{inner}{}", tensor.name);
            let mut pieces = Vec::new();
            match (tensor.role, config.experts()) {
                (Role::ExpertMatrices, Some(experts)) => {
                    for (name, rows) in stacked(&stored, experts, tensor.info.shape[0]) {
                        let leading = [experts.count, rows.rows];
                        pieces.extend(plan.matrix(tensor, &name, &leading, Some(rows))?);
                    }
                }
                _ => {
                    let leading = &tensor.info.shape[..tensor.info.shape.len().min(1)];
                    pieces.extend(plan.matrix(tensor, &stored, leading, None)?);
                }
            }
            plan.pieces.push(pieces);
        }
        Ok(plan)
    }

    /// Adds the tensors of a matrix, or a vector. All dimensions before the columns are `leading`.
    fn matrix(
        &mut self,
        PlannedTensor { name, info, .. }: &PlannedTensor,
        stored: &str,
        leading: &[usize],
        rows: Option<Blocks>,
    ) -> Result<Vec<Piece>> {
        let piece = |part| Piece { part, rows };
        let (Dtype::Packed(format), &[_, cols]) = (info.dtype, info.shape.as_slice()) else {
            if !info.dtype.is_float() {
                return Err(Error::Unsupported(format!("{name}: {} for MLX", info.dtype)));
            }
            let bytes = info.dtype.block_bytes();
            let shape = [leading, info.shape.get(1..).unwrap_or_default()].concat();
            self.tensors.push(new_tensor(stored.into(), float_name(info.dtype), shape, bytes));
            return Ok(vec![piece(Part::Plain)]);
        };
        let Setting { bits, group } = match format {
            PackFormat::Int { bits: bits @ (4 | 8), group: group @ (32 | 64 | 128), .. }
                if cols.is_multiple_of(group as usize) =>
            {
                Setting { bits, group: group as usize }
            }
            _ => {
                let reason = format!(
                    "{format} of {cols} columns: MLX gets only int4 and int8 in groups of 32, 64 \
                     or 128 that fill rows"
                );
                return Err(Error::tensor(name, reason));
            }
        };
        let module = stored.strip_suffix(".weight").unwrap_or(stored).to_owned();
        let shape = |columns: usize| [leading, &[columns]].concat();
        let words = shape(cols * bits as usize / 32);
        self.tensors.push(new_tensor(stored.into(), "U32", words, 4));
        for table in ["scales", "biases"] {
            let name = format!("{module}.{table}");
            self.tensors.push(new_tensor(name, "BF16", shape(cols / group), 2));
        }
        self.modules.push((module, Setting { bits, group }));
        Ok([Part::Integers, Part::Scales, Part::Biases].map(piece).into())
    }

    /// The setting of most modules. Among equally frequent ones it is the one with fewer bits.
    fn usual(&self) -> Setting {
        let count =
            |setting: Setting| self.modules.iter().filter(|(_, other)| *other == setting).count();
        let all = self.modules.iter().map(|(_, setting)| *setting);
        let usual = all
            .max_by_key(|setting| (count(*setting), Reverse(setting.bits), Reverse(setting.group)));
        usual.unwrap_or(Setting { bits: 4, group: 32 })
    }

    /// `source`, the model's config.json, with the settings that mlx-lm needs.
    ///
    /// Errors: what mlx-lm cannot express.
    pub fn config(&self, source: Value, model: &ModelConfig) -> Result<Value> {
        let of = |set: Setting| json!({ "group_size": set.group, "bits": set.bits, "mode": MODE });
        let mut quantization = of(self.usual());
        let others = self.modules.iter().filter(|(_, setting)| *setting != self.usual());
        let others: Map<String, Value> =
            others.map(|(module, setting)| (module.clone(), of(*setting))).collect();
        if let Value::Object(fields) = &mut quantization {
            fields.extend(others);
        }
        let is_head = |tensor: &NewTensor| tensor.name.ends_with("lm_head.weight");
        let tied = !self.tensors.iter().any(is_head);
        let mut config = mlx_config::for_mlx_lm(source, model, tied)?;
        if let (Value::Object(fields), false) = (&mut config, self.modules.is_empty()) {
            // mlx-lm reads the first name, other programs the second.
            fields.insert("quantization".into(), quantization.clone());
            fields.insert("quantization_config".into(), quantization);
        }
        Ok(config)
    }
}

impl Part {
    /// Whether no other part of the same rows comes before it.
    pub fn is_first(self) -> bool {
        matches!(self, Part::Plain | Part::Integers)
    }

    /// The bytes of `rows` rows of the tensor.
    pub fn convert(self, info: &TensorInfo, bytes: &[u8], rows: usize) -> Result<Vec<u8>, String> {
        let (Dtype::Packed(format), &[_, cols]) = (info.dtype, info.shape.as_slice()) else {
            return Ok(bytes.to_vec());
        };
        let PackFormat::Int { bits, offset: has_offset, .. } = format else {
            return Ok(bytes.to_vec());
        };
        let packed = pack_rows(info.dtype, bytes, rows, cols, format)?;
        // The number that makes the smallest integer 0.
        let shift: i16 = match (bits, has_offset) {
            (4, true) => 0,
            (4, false) => 8,
            _ => 128,
        };
        let (mut out, mut fault) = (Vec::new(), None);
        for row in 0..rows {
            packed.for_each_group(row, |group, q, scale, offset| {
                let number = match self {
                    Part::Plain => return,
                    Part::Integers => {
                        let unsigned = q.iter().map(|q| (*q as i16 + shift) as u8);
                        match bits {
                            4 => {
                                let nibbles: Vec<u8> = unsigned.collect();
                                out.extend(
                                    nibbles
                                        .as_chunks::<2>()
                                        .0
                                        .iter()
                                        .map(|[low, high]| low | high << 4),
                                );
                            }
                            _ => out.extend(unsigned),
                        }
                        return;
                    }
                    Part::Scales => scale,
                    Part::Biases => offset - shift as f32 * scale,
                };
                let rounded = bf16::from_f32(number);
                if !rounded.is_finite() {
                    fault = Some(format!("row {row}, group {group}: {number:e} is beyond bf16"));
                }
                out.extend(rounded.to_le_bytes());
            });
        }
        fault.map_or(Ok(out), Err)
    }
}
