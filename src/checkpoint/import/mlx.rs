//! MLX: `weight` of U32 words, `scales` and `biases`; config.json's `quantization` tells bits and group size, for
//! single modules too.

use std::collections::HashMap;

use super::{FLOATS, Imported, Parts, part, table};
use crate::{
    Error, Result,
    config::json::Fields,
    error::quoted,
    quant::grouped::{Grouped, Integers, Zeros},
};

pub(super) const WEIGHT: &str = "weight";
pub(super) const SUFFIXES: &[&str] = &[WEIGHT, "scales", "biases"];

/// Bits and group size.
#[derive(Debug, Clone, Copy)]
struct Scheme {
    bits: usize,
    group: usize,
}

impl Scheme {
    fn of(fields: Fields<'_>, name: &str) -> Result<Scheme> {
        let size = |key: &str| {
            fields.size(key)?.ok_or_else(|| Error::Config(format!("{} of the quantization lacks {key}", quoted(name))))
        };
        match fields.text("mode")? {
            None | Some("affine") => {}
            Some(mode) => {
                return Err(Error::Unsupported(format!("MLX quantization mode {} (only affine)", quoted(mode))));
            }
        }
        Ok(Scheme { bits: size("bits")?, group: size("group_size")? })
    }
}

/// What config.json says.
pub(in super::super) struct Settings {
    all: Scheme,
    /// By the module's name.
    modules: HashMap<String, Scheme>,
}

impl Settings {
    pub fn of(quantization: Fields<'_>) -> Result<Settings> {
        let mut modules = HashMap::new();
        for (name, value) in quantization.iter().filter(|(_, value)| value.is_object()) {
            modules.insert(name.clone(), Scheme::of(Fields::of(value, name)?, name)?);
        }
        Ok(Settings { all: Scheme::of(quantization, "config.json")?, modules })
    }

    pub fn matrix(&self, module: &str, parts: &Parts) -> Result<Imported, String> {
        let Scheme { bits, group } = *self.modules.get(module).unwrap_or(&self.all);
        let integers = match bits {
            4 => Integers::Nibbles,
            8 => Integers::Bytes,
            _ => return Err(format!("MLX quantization to {bits} bits (4 and 8 are supported)")),
        };
        let weight = part(parts, WEIGHT, &["U32"], 2)?;
        let (scales, biases) = (part(parts, "scales", FLOATS, 2)?, part(parts, "biases", FLOATS, 2)?);
        let (rows, words, groups) = (weight.tensor.shape[0], weight.tensor.shape[1], scales.tensor.shape[1]);
        let cols = words.checked_mul(32 / bits).filter(|cols| groups.checked_mul(group) == Some(*cols));
        let cols = cols.ok_or_else(|| {
            format!("{words} words of {bits} bits are not {groups} groups of {group}, as the config says")
        })?;
        let grouped = Grouped {
            rows,
            cols,
            group,
            integers,
            scales: table(scales, [rows, groups], false)?,
            zeros: Zeros::Biases(table(biases, [rows, groups], false)?),
        };
        Ok(Imported { grouped, integers: weight.place(), scales: scales.place(), zeros: Some(biases.place()) })
    }
}
