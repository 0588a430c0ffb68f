//! Experts in the forms of files, as matrices of all experts' rows.
//!
//! Files have gate and up merged or apart. All experts are in one tensor of three dimensions, or
//! each has its own matrix.

use std::collections::BTreeMap;

use crate::checkpoint::expert_names::{DOWN, GATE, Part, STACKED, UP};
use crate::checkpoint::tensor_index::{Content, Entry, TensorIndex};
use crate::error::{Error, Result};
use crate::model::config::{Experts, ModelConfig, hf::EXPERTS};
use crate::model::tensors::{EXPERTS_DOWN, EXPERTS_GATE_UP, ROUTER, TensorSpec, spec_of};
use crate::quant::{Dtype, PackFormat};

/// Replaces the tensors of experts by matrices of all experts' rows.
///
/// Errors: experts or parts that are missing, too many or of another shape; both forms at once.
pub(super) fn join(config: &ModelConfig, tensors: &mut TensorIndex) -> Result<()> {
    refuse_unwanted(config, tensors)?;
    let mut layers = BTreeMap::<usize, Vec<String>>::new();
    for (name, part) in tensors.keys().filter_map(|name| Some((name, Part::of(name)?))) {
        layers.entry(part.layer).or_default().push(name.clone());
    }
    for (index, layer) in config.layers.iter().enumerate() {
        let Some(experts) = layer.experts else { continue };
        let job = Layer { index, experts, hidden: config.hidden_size };
        let mut names = layers.remove(&index).unwrap_or_default();
        names.sort();
        for spec in [&EXPERTS_GATE_UP, &EXPERTS_DOWN] {
            let of_spec = |name: &&String| Part::of(name).is_some_and(|p| p.whole() == spec);
            let names: Vec<&String> = names.iter().filter(of_spec).collect();
            job.matrix(spec, &names, tensors)?;
        }
    }
    Ok(())
}

/// Errors if the files have experts and the config has none.
fn refuse_unwanted(config: &ModelConfig, tensors: &TensorIndex) -> Result<()> {
    let is_unwanted = |name: &&String| {
        let of_expert =
            |spec: &TensorSpec| [&EXPERTS_GATE_UP, &EXPERTS_DOWN, &ROUTER].contains(&spec);
        let layer = match (Part::of(name), spec_of(name)) {
            (Some(part), _) => Some(part.layer),
            (None, Some((layer, spec))) if of_expert(spec) => layer,
            _ => None,
        };
        let layer = layer.and_then(|index| config.layers.get(index));
        layer.is_some_and(|layer| layer.experts.is_none())
    };
    match tensors.keys().filter(is_unwanted).min() {
        Some(name) => {
            let reason = format!("is in the files, and the config has no experts ({EXPERTS})");
            Err(Error::tensor(name, reason))
        }
        None => Ok(()),
    }
}

/// The experts of a layer.
struct Layer {
    index: usize,
    experts: Experts,
    hidden: usize,
}

impl Layer {
    /// Makes one matrix of a merged tensor, or of the parts `names`.
    fn matrix(
        &self,
        spec: &TensorSpec,
        names: &[&String],
        tensors: &mut TensorIndex,
    ) -> Result<()> {
        let whole = spec.in_layer(self.index);
        match (tensors.get_mut(&whole), names.first()) {
            (Some(_), Some(part)) => {
                let reason = format!("is in the files, and so is {part}: one of them is too many");
                Err(Error::tensor(whole, reason))
            }
            (Some(entry), None) => self.flatten_whole(spec, &whole, entry),
            (None, Some(_)) => {
                let joined = self.joined(spec, names, tensors)?;
                tensors.insert(whole, joined);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Rows of one expert, columns, and the matrices of these rows.
    fn sizes(&self, spec: &TensorSpec) -> (usize, usize, &'static [&'static str]) {
        let Experts { intermediate_size, .. } = self.experts;
        match spec == &EXPERTS_DOWN {
            true => (self.hidden, intermediate_size, &[DOWN]),
            false => (2 * intermediate_size, self.hidden, &[GATE, UP]),
        }
    }

    fn flatten_whole(&self, spec: &TensorSpec, name: &str, entry: &mut Entry) -> Result<()> {
        let ((rows, cols, _), count) = (self.sizes(spec), self.experts.count);
        let shape = &mut entry.info.shape;
        // A packed checkpoint of this program has two dimensions.
        if *shape == [count, rows, cols] || *shape == [count * rows, cols] {
            *shape = vec![count * rows, cols];
            return Ok(());
        }
        let wanted = [count, rows, cols];
        let reason = format!("has shape {shape:?}, the config wants {wanted:?} of {count} experts");
        Err(Error::tensor(name, reason))
    }

    fn joined(
        &self,
        spec: &TensorSpec,
        names: &[&String],
        tensors: &mut TensorIndex,
    ) -> Result<Entry> {
        let (rows, cols, matrices) = self.sizes(spec);
        let (count, block) = (self.experts.count, rows / matrices.len());
        let of_experts =
            names.iter().find(|name| Part::of(name).is_some_and(|p| p.expert.is_some()));
        let stacked = names.iter().find(|name| Part::of(name).is_some_and(|p| p.expert.is_none()));
        if let (Some(one), Some(other)) = (of_experts, stacked) {
            let reason = format!("is in the files, and so is {other}: one of them is too many");
            return Err(Error::tensor(one.as_str(), reason));
        }
        let owners: Vec<String> = match of_experts {
            Some(_) => (0..count).map(|expert| expert.to_string()).collect(),
            None => vec![STACKED.into()],
        };
        let mut parts = Vec::new();
        for owner in &owners {
            for matrix in matrices {
                let name = format!("layers.{}.experts.{owner}.{matrix}.weight", self.index);
                let entry = tensors.remove(&name);
                let entry = entry.ok_or_else(|| Error::tensor(&name, MISSING))?;
                let wanted = [count / owners.len() * block, cols];
                if entry.info.shape != wanted {
                    let shape = &entry.info.shape;
                    let reason = format!(
                        "has shape {shape:?}, the config wants {wanted:?} ({count} experts)"
                    );
                    return Err(Error::tensor(name, reason));
                }
                parts.push(entry);
            }
        }
        if let Some(name) = names.iter().find(|name| tensors.contains_key(name.as_str())) {
            let reason = format!("is in the files, and the config says {count} experts");
            return Err(Error::tensor(name.as_str(), reason));
        }
        unify(&mut parts)?;
        let mut info = parts[0].info.clone();
        info.shape = vec![count * rows, cols];
        let own_name = parts[0].own_name.clone();
        Ok(Entry { info, content: Content::Joined { parts, block }, own_name })
    }
}

const MISSING: &str = "missing from the checkpoint";

/// Gives all parts one format. Integers with and without offsets all get them.
///
/// Errors: parts of other types or group sizes.
pub(super) fn unify(parts: &mut [Entry]) -> Result<()> {
    let Some(dtype) = parts.first().map(|part| part.info.dtype) else { return Ok(()) };
    if parts.iter().all(|part| part.info.dtype == dtype) {
        return Ok(());
    }
    let first = parts[0].own_name.clone();
    for part in parts {
        let own = part.info.dtype;
        match (with_offset(own), with_offset(dtype), &mut part.content) {
            (Some(wanted), Some(other), Content::Grouped(_, format)) if wanted == other => {
                *format = wanted;
                part.info.dtype = Dtype::Packed(wanted);
            }
            _ => {
                let reason = format!("is {own}, and {first} is {dtype}: experts need one type");
                return Err(Error::tensor(part.own_name.as_str(), reason));
            }
        }
    }
    Ok(())
}

fn with_offset(dtype: Dtype) -> Option<PackFormat> {
    match dtype {
        Dtype::Packed(PackFormat::Int { bits, group, .. }) => {
            Some(PackFormat::Int { bits, group, offset: true })
        }
        _ => None,
    }
}
