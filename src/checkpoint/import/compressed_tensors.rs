//! compressed-tensors, `pack-quantized`: `weight_packed` of I32 words, `weight_scale` and
//! `weight_shape`. Integers with zero points also have `weight_zero_point`. Sizes follow from the
//! tensors' shapes.

use regex::Regex;

use crate::checkpoint::import::matrix::{FLOATS, Imported, Parts, part, table};
use crate::error::{Error, Result, quoted};
use crate::json::Fields;
use crate::quant::grouped::{Grouped, Integers, Zeros};

pub(super) const SUFFIXES: &[&str] =
    &["weight_packed", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx"];

/// The description of the weights in config.json.
pub(in super::super) struct Settings {
    groups: Vec<Group>,
}

/// Modules with the same quantization.
struct Group {
    bits: usize,
    targets: Vec<Target>,
}

/// Selects modules. The library prefers a group that names a module, then one with a pattern, then
/// one for a class. This is `match_targets`, which orders patterns by their text.
struct Target {
    /// A module's name, a class, or `re:` and a pattern.
    text: String,
    /// Must match from the name's beginning.
    pattern: Option<Regex>,
}

impl Target {
    fn of(value: &serde_json::Value) -> Result<Target> {
        let text = value
            .as_str()
            .ok_or_else(|| Error::Config("targets of compressed-tensors are not names".into()))?;
        let pattern =
            text.strip_prefix("re:").map(|pattern| Regex::new(&format!("^(?:{pattern})")));
        let unknown =
            |_| refuse(format!("the target {}, no regular expression known here", quoted(text)));
        Ok(Target { text: text.to_owned(), pattern: pattern.transpose().map_err(unknown)? })
    }

    /// The rank of the match with a linear layer. Lower ranks are better.
    fn rank(&self, module: &str) -> Option<(usize, &str)> {
        let kind = match &self.pattern {
            None if self.text == module => 0,
            Some(pattern) if pattern.is_match(module) => 1,
            None if self.text == "Linear" => 2,
            _ => return None,
        };
        Some((kind, &self.text))
    }
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
        let groups = quantization.object("config_groups")?.ok_or_else(|| {
            Error::Config("quantization_config of compressed-tensors has no config_groups".into())
        })?;
        let mut found = Vec::new();
        for (name, value) in groups.iter() {
            let group = Fields::of(value, name)?;
            check_format(group)?;
            if group.object("input_activations")?.is_some()
                || group.object("output_activations")?.is_some()
            {
                return Err(refuse(format!("quantized activations ({})", quoted(name))));
            }
            let Some(weights) = group.object("weights")? else { continue };
            match weights.text("type")? {
                None | Some("int") => {}
                Some(kind) => {
                    return Err(refuse(format!("weights of type {} (only int)", quoted(kind))));
                }
            }
            let bits = match weights.size("num_bits")? {
                Some(width @ (4 | 8)) => width,
                Some(width) => {
                    return Err(refuse(format!("weights of {width} bits (4 and 8 are supported)")));
                }
                None => {
                    return Err(Error::Config(format!(
                        "{} of compressed-tensors lacks num_bits",
                        quoted(name)
                    )));
                }
            };
            let targets = group
                .list("targets")?
                .into_iter()
                .flatten()
                .map(Target::of)
                .collect::<Result<_>>()?;
            found.push(Group { bits, targets });
        }
        Ok(Settings { groups: found })
    }

    /// Bits of a module's weights.
    fn bits(&self, module: &str) -> Result<usize, String> {
        let [first, others @ ..] = self.groups.as_slice() else {
            return Err("no group of config_groups has weights".into());
        };
        if others.iter().all(|other| other.bits == first.bits) {
            return Ok(first.bits);
        }
        let ranks = self.groups.iter().filter_map(|group| {
            Some((group.targets.iter().filter_map(|target| target.rank(module)).min()?, group.bits))
        });
        let best = ranks.min_by_key(|(rank, _)| *rank);
        best.map(|(_, bits)| bits)
            .ok_or_else(|| "no group of config_groups has it among its targets".into())
    }

    pub fn matrix(&self, module: &str, parts: &Parts) -> Result<Imported, String> {
        if parts.contains_key("weight_g_idx") {
            return Err("columns in another order (weight_g_idx) are not supported".into());
        }
        let packed = part(parts, "weight_packed", &["I32"], 2)?;
        let scales = part(parts, "weight_scale", FLOATS, 2)?;
        let (rows, words, groups) =
            (packed.tensor.shape[0], packed.tensor.shape[1], scales.tensor.shape[1]);
        // weight_shape repeats the other shapes, except where the last word is not full.
        part(parts, "weight_shape", &["I64", "I32"], 1)?;
        let bits = self.bits(module)?;
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
