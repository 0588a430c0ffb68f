//! torchao: the file's metadata lists `tensor_names` and describes each of them. A matrix
//! `m.weight` of a tensor subclass is stored as `m._weight_qdata`, `m._weight_scale`,
//! `m._weight_zero_point`.

use std::collections::HashMap;

use serde_json::Value;

use crate::checkpoint::import::matrix::{FLOATS, Imported, Parts, part, table};
use crate::error::{Error, Result, quoted};
use crate::json::{self, Fields};
use crate::quant::grouped::{Grouped, Integers, Zeros};

const QDATA: &str = "_weight_qdata";
const SCALE: &str = "_weight_scale";
const ZERO_POINT: &str = "_weight_zero_point";
const PRE_SCALE: &str = "_weight_act_pre_scale";
pub(super) const SUFFIXES: &[&str] = &[QDATA, SCALE, ZERO_POINT, PRE_SCALE];

/// The metadata's description of each matrix.
pub(in super::super) struct Settings {
    /// The subclass and its attributes, by the module's name.
    modules: HashMap<String, (String, Value)>,
}

impl Settings {
    /// `None` if the metadata is not torchao's. Errors: an unsupported subclass, broken metadata.
    pub fn of(metadata: &HashMap<String, String>) -> Result<Option<Settings>> {
        let Some(names) = metadata.get("tensor_names") else { return Ok(None) };
        let broken = |error: String| Error::Config(format!("torchao's metadata: {error}"));
        let names: Vec<String> = json::parse(names.as_bytes()).map_err(broken)?;
        let mut modules = HashMap::new();
        for name in names {
            let text = metadata
                .get(&name)
                .ok_or_else(|| broken(format!("{} is not described", quoted(&name))))?;
            let value: Value = json::parse(text.as_bytes()).map_err(broken)?;
            let fields = Fields::of(&value, &name)?;
            match fields.text("_type")? {
                Some("Tensor") => {}
                Some(class @ ("Int4Tensor" | "IntxUnpackedToInt8Tensor")) => {
                    let Some(module) = name.strip_suffix(".weight") else {
                        return Err(Error::Unsupported(format!(
                            "torchao's {class} {}, not a weight",
                            quoted(&name)
                        )));
                    };
                    let data = fields.get("_data").cloned().unwrap_or(Value::Null);
                    modules.insert(module.to_owned(), (class.to_owned(), data));
                }
                other => {
                    let class = quoted(other.unwrap_or("without a type"));
                    return Err(Error::Unsupported(format!(
                        "torchao tensor {class} ({}): Int4Tensor and IntxUnpackedToInt8Tensor are \
                         supported",
                        quoted(&name)
                    )));
                }
            }
        }
        Ok(Some(Settings { modules }))
    }

    pub fn matrix(&self, module: &str, parts: &Parts) -> Result<Imported, String> {
        let (class, data) = self.modules.get(module).ok_or("the metadata do not describe it")?;
        let fields = Fields::of(data, "_data").map_err(|error| error.to_string())?;
        if parts.contains_key(PRE_SCALE) {
            return Err("scaled activations (act_pre_scale) are not supported".into());
        }
        let int4 = class == "Int4Tensor";
        let qdata = part(parts, QDATA, if int4 { &["U8", "I8"] } else { &["I8"] }, 2)?;
        let scale = part(parts, SCALE, FLOATS, 2)?;
        let zero_point = part(parts, ZERO_POINT, &["BF16", "F16", "F32", "I8"], 2)?;
        let (rows, width) = (qdata.tensor.shape[0], qdata.tensor.shape[1]);
        let cols = if int4 { width.checked_mul(2).ok_or("too wide")? } else { width };
        let group = group_size(fields)?;
        if group == 0 || !cols.is_multiple_of(group) {
            return Err(format!("groups of {group} do not divide its {cols} columns"));
        }
        let groups = cols / group;
        let integers = match int4 {
            true => Integers::Nibbles,
            false => Integers::SignedBytes { narrow: is_narrow(fields)? },
        };
        let grouped = Grouped {
            rows,
            cols,
            group,
            integers,
            scales: table(scale, [rows, groups], int4)?,
            zeros: Zeros::Points(table(zero_point, [rows, groups], int4)?),
        };
        Ok(Imported {
            grouped,
            integers: qdata.place(),
            scales: scale.place(),
            zeros: Some(zero_point.place()),
        })
    }
}

/// Columns of a block, which must have one row.
fn group_size(fields: Fields<'_>) -> Result<usize, String> {
    let sizes = fields
        .list("block_size")
        .map_err(|error| error.to_string())?
        .ok_or("block_size is missing")?;
    match sizes.iter().map(Value::as_u64).collect::<Vec<_>>().as_slice() {
        [Some(1), Some(group)] => usize::try_from(*group).map_err(|_| format!("groups of {group}")),
        _ => Err(format!(
            "block_size {}, not one row by a group of columns",
            Value::from(sizes.clone())
        )),
    }
}

/// Whether the integers have 4 bits. Errors for types above 8 bits, and for quantized activations.
fn is_narrow(fields: Fields<'_>) -> Result<bool, String> {
    if let Some(activations) = fields.get("activation_quantization") {
        return Err(format!("quantized activations ({activations}) are not supported"));
    }
    let target = fields.object("target_dtype").map_err(|error| error.to_string())?;
    let name = target.and_then(|target| target.get("_data")).and_then(Value::as_str);
    match name {
        Some("int4") => Ok(true),
        Some("int5" | "int6" | "int7" | "int8") => Ok(false),
        other => Err(format!(
            "target_dtype {} (int4 to int8 are supported)",
            quoted(other.unwrap_or("none"))
        )),
    }
}
