//! MLX: `weight` of U32 words, `scales` and `biases`. config.json's `quantization` gives bits and
//! group size, also for single modules.

use std::collections::HashMap;

use crate::checkpoint::import::matrix::{FLOATS, Imported, Parts, part, table};
use crate::error::{Result, quoted};
use crate::json::Fields;
use crate::quant::grouped::{Grouped, Integers, Zeros};

pub(super) const WEIGHT: &str = "weight";
pub(super) const SUFFIXES: &[&str] = &[WEIGHT, "scales", "biases"];

/// MLX's default where the config gives no value, even if other modules have another one.
const DEFAULT_BITS: usize = 4;
const DEFAULT_GROUP: usize = 64;

/// Bits and group size.
#[derive(Debug, Clone)]
struct Scheme {
    bits: usize,
    group: usize,
    /// A mode other than affine.
    other_mode: Option<String>,
}

impl Scheme {
    fn of(fields: Fields<'_>) -> Result<Scheme> {
        Ok(Scheme {
            bits: fields.size("bits")?.unwrap_or(DEFAULT_BITS),
            group: fields.size("group_size")?.unwrap_or(DEFAULT_GROUP),
            other_mode: fields.text("mode")?.filter(|mode| *mode != "affine").map(String::from),
        })
    }
}

/// The settings in config.json.
pub(in super::super) struct Settings {
    all: Scheme,
    /// By the module's name.
    modules: HashMap<String, Scheme>,
}

impl Settings {
    pub fn of(quantization: Fields<'_>) -> Result<Settings> {
        let mut modules = HashMap::new();
        for (name, value) in quantization.iter().filter(|(_, value)| value.is_object()) {
            modules.insert(name.clone(), Scheme::of(Fields::of(value, name)?)?);
        }
        Ok(Settings { all: Scheme::of(quantization)?, modules })
    }

    pub fn matrix(&self, module: &str, parts: &Parts) -> Result<Imported, String> {
        let &Scheme { bits, group, ref other_mode } = self.modules.get(module).unwrap_or(&self.all);
        if let Some(mode) = other_mode {
            return Err(format!(
                "MLX quantization mode {} is not supported (only affine)",
                quoted(mode)
            ));
        }
        let integers = match bits {
            4 => Integers::Nibbles,
            8 => Integers::Bytes,
            _ => return Err(format!("MLX quantization to {bits} bits (4 and 8 are supported)")),
        };
        let weight = part(parts, WEIGHT, &["U32"], 2)?;
        let (scales, biases) =
            (part(parts, "scales", FLOATS, 2)?, part(parts, "biases", FLOATS, 2)?);
        let (rows, words, groups) =
            (weight.tensor.shape[0], weight.tensor.shape[1], scales.tensor.shape[1]);
        let cols =
            words.checked_mul(32 / bits).filter(|cols| groups.checked_mul(group) == Some(*cols));
        let cols = cols.ok_or_else(|| {
            format!(
                "weight {:?} of {bits} bits and scales {:?} are not in groups of {group}, as the \
                 config says",
                weight.tensor.shape, scales.tensor.shape
            )
        })?;
        let grouped = Grouped {
            rows,
            cols,
            group,
            integers,
            scales: table(scales, [rows, groups], false)?,
            zeros: Zeros::Biases(table(biases, [rows, groups], false)?),
        };
        Ok(Imported {
            grouped,
            integers: weight.place(),
            scales: scales.place(),
            zeros: Some(biases.place()),
        })
    }
}
