//! compressed-tensors, `pack-quantized`: `weight_packed` of I32 words, `weight_scale`, `weight_shape` and, where the
//! integers have zero points, `weight_zero_point`. Sizes follow from the tensors' shapes.

use super::{FLOATS, Imported, Parts, part, table};
use crate::{
    Error, Result,
    config::json::Fields,
    error::quoted,
    quant::grouped::{Grouped, Integers, Zeros},
};

pub(super) const SUFFIXES: &[&str] =
    &["weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"];

/// What config.json says of the weights.
pub(in super::super) struct Settings {
    /// Bits of the groups of modules.
    bits: Vec<usize>,
}

impl Settings {
    pub fn of(quantization: Fields<'_>) -> Result<Settings> {
        let check_format = |fields: Fields<'_>| match fields.text("format")? {
            None | Some("pack-quantized" | "mixed-precision") => Ok(()),
            Some(format) => Err(refuse(format!("format {} (only pack-quantized)", quoted(format)))),
        };
        check_format(quantization)?;
        if quantization.object("kv_cache_scheme")?.is_some() {
            return Err(refuse("a quantized KV cache (kv_cache_scheme)".into()));
        }
        let groups = quantization
            .object("config_groups")?
            .ok_or_else(|| Error::Config("quantization_config of compressed-tensors has no config_groups".into()))?;
        let mut bits = Vec::new();
        for (name, value) in groups.iter() {
            let group = Fields::of(value, name)?;
            check_format(group)?;
            if group.object("input_activations")?.is_some() || group.object("output_activations")?.is_some() {
                return Err(refuse(format!("quantized activations ({})", quoted(name))));
            }
            let Some(weights) = group.object("weights")? else { continue };
            match weights.text("type")? {
                None | Some("int") => {}
                Some(kind) => return Err(refuse(format!("weights of type {} (only int)", quoted(kind)))),
            }
            match weights.size("num_bits")? {
                Some(width @ (4 | 8)) => bits.push(width),
                Some(width) => return Err(refuse(format!("weights of {width} bits (4 and 8 are supported)"))),
                None => return Err(Error::Config(format!("{} of compressed-tensors lacks num_bits", quoted(name)))),
            }
        }
        Ok(Settings { bits })
    }

    pub fn matrix(&self, parts: &Parts) -> Result<Imported, String> {
        if parts.contains_key("weight_g_idx") {
            return Err("columns in another order (weight_g_idx) are not supported".into());
        }
        let packed = part(parts, "weight_packed", &["I32"], 2)?;
        let scales = part(parts, "weight_scale", FLOATS, 2)?;
        let (rows, words, groups) = (packed.tensor.shape[0], packed.tensor.shape[1], scales.tensor.shape[1]);
        // weight_shape repeats what the other shapes tell, but where the last word is not full.
        part(parts, "weight_shape", &["I64", "I32"], 1)?;
        let bits = match self.bits.as_slice() {
            [] => return Err("no group of config_groups has weights".into()),
            [bits, others @ ..] if others.iter().all(|other| other == bits) => *bits,
            _ => return Err("config_groups of several widths are not supported".into()),
        };
        let cols = words.checked_mul(32 / bits).ok_or_else(|| format!("{words} words in a row"))?;
        if groups == 0 || !cols.is_multiple_of(groups) {
            return Err(format!("{groups} groups do not divide its {cols} columns"));
        }
        let zero_points = parts.get("weight_zero_point");
        let zeros = match zero_points {
            None => Zeros::Middle,
            Some(_) if bits != 4 => return Err("zero points of 8 bits are not supported".into()),
            Some(_) => {
                let points = part(parts, "weight_zero_point", &["I32"], 2)?;
                if points.tensor.shape != [rows.div_ceil(8), groups] {
                    return Err(format!("weight_zero_point has shape {:?}", points.tensor.shape));
                }
                Zeros::PackedPoints
            }
        };
        let grouped = Grouped {
            rows,
            cols,
            group: cols / groups,
            integers: if bits == 4 { Integers::Nibbles } else { Integers::Bytes },
            scales: table(scales, [rows, groups], false)?,
            zeros,
        };
        let zeros = zero_points.map(|points| points.place());
        Ok(Imported { grouped, integers: packed.place(), scales: scales.place(), zeros })
    }
}

fn refuse(what: String) -> Error {
    Error::Unsupported(format!("compressed-tensors with {what}"))
}
