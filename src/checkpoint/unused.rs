//! Lists unused tensors of the files, and explains missing ones.

use std::collections::{BTreeMap, HashSet};

use crate::checkpoint::checkpoint::Checkpoint;
use crate::error::{Error, quoted};
use crate::model::config::{ModelConfig, hf::EXPERTS};
use crate::model::tensors::{Condition, LM_HEAD, spec_of, tensor_kind, tensor_specs};

/// Parts of names that only contain others and do not describe a tensor.
const CONTAINERS: [&str; 5] = ["model", "language_model", "base_model", "layers", "blk"];

/// Tensors of a checkpoint whose names have the same beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedTensors {
    /// `model.vision_tower.*`, or a name with `*` for the layer's number.
    pub name: String,
    pub tensors: usize,
}

impl Checkpoint {
    /// The tensors of the files that the model does not use, in groups.
    pub fn unused(&self) -> Vec<UnusedTensors> {
        let used: HashSet<String> =
            tensor_specs(&self.config).into_iter().map(|tensor| tensor.name).collect();
        let mut groups = BTreeMap::<String, usize>::new();
        for name in &self.skipped {
            *groups.entry(group_of(name)).or_default() += 1;
        }
        for name in self.tensors.keys().filter(|name| !used.contains(*name)) {
            *groups.entry(layers_starred(name)).or_default() += 1;
        }
        groups.into_iter().map(|(name, tensors)| UnusedTensors { name, tensors }).collect()
    }

    pub(super) fn log_unused(&self) {
        if log::log_enabled!(log::Level::Debug) {
            for UnusedTensors { name, tensors } in self.unused() {
                log::debug!("not used: {name} {tensors} tensors");
            }
        }
    }

    /// An error for a missing tensor, with the config's reason for it and a similar name in the
    /// files.
    pub(super) fn explain_missing(&self, name: &str) -> Error {
        let mut reason = "missing from the checkpoint".to_owned();
        if let Some(why) = why_wanted(&self.config, name).filter(|_| self.is_hugging_face()) {
            reason += &format!(", and the config says {why}");
        }
        if let Some(nearest) = nearest(&self.skipped, name) {
            reason += &format!("; the nearest name there is {}", quoted(nearest));
        }
        Error::tensor(name, reason)
    }
}

/// The config value that requires a tensor which other models lack.
fn why_wanted(config: &ModelConfig, name: &str) -> Option<String> {
    let shared = config.layers.len() - config.cached_layers().len();
    let (_, spec) = spec_of(name)?;
    match spec.condition {
        Condition::UntiedHead => Some("tie_word_embeddings = false".into()),
        Condition::OwnValues => Some("that V is not K in this layer (attention_k_eq_v)".into()),
        Condition::OwnKeys => {
            Some(format!("num_kv_shared_layers = {shared}, which gives the layer keys of its own"))
        }
        Condition::PerLayerInput => {
            let size = config.per_layer_input.map_or(0, |input| input.size);
            Some(format!("hidden_size_per_layer_input = {size}"))
        }
        Condition::Experts => Some(format!("{EXPERTS} = true")),
        Condition::Always | Condition::LayerScalar => None,
    }
}

/// The name with the same end as `name`, or else with the most parts of it, at least two.
fn nearest<'a>(names: &'a [String], name: &str) -> Option<&'a String> {
    let words: HashSet<&str> = name.split('.').collect();
    let same_end = |other: &str| {
        let pairs = other.rsplit('.').zip(name.rsplit('.'));
        pairs.take_while(|(left, right)| left == right).count()
    };
    let same_words = |other: &str| other.split('.').filter(|word| words.contains(word)).count();
    let score = |other: &&String| (same_end(other).max(same_words(other)), same_end(other));
    names.iter().max_by_key(score).filter(|best| score(best).0 >= 2)
}

/// The group of an unknown tensor: `model.vision_tower.*`.
fn group_of(name: &str) -> String {
    let words: Vec<&str> = name.split('.').collect();
    let is_container = |word: &str| CONTAINERS.contains(&word) || is_number(word);
    let first = words.iter().position(|word| !is_container(word)).unwrap_or(words.len());
    let shown = words.iter().take(first + 1).map(|word| if is_number(word) { "*" } else { word });
    let mut group = shown.collect::<Vec<_>>().join(".");
    if words.len() > first + 1 {
        group += ".*";
    }
    group.chars().filter(|c| !c.is_control()).take(80).collect()
}

fn layers_starred(name: &str) -> String {
    match tensor_kind(name) {
        head if head == LM_HEAD.name => format!("{head} (equal to the embedding)"),
        tensor if tensor == name => name.to_owned(),
        tensor => format!("layers.*.{tensor}"),
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_grouped_by_what_they_are_of() {
        for (name, group) in [
            ("model.vision_tower.encoder.layers.3.mlp.up_proj.weight", "model.vision_tower.*"),
            (
                "base_model.model.model.layers.0.self_attn.q_proj.weight",
                "base_model.model.model.layers.*.self_attn.*",
            ),
            ("v.blk.0.attn_q.weight", "v.*"),
            ("blk.7.ffn_sub_norm.weight", "blk.*.ffn_sub_norm.*"),
            ("extra", "extra"),
        ] {
            assert_eq!(group_of(name), group);
        }
    }

    #[test]
    fn the_nearest_name_ends_alike() {
        let names = [
            "base_model.model.model.layers.10.mlp.up_proj.weight",
            "base_model.model.model.layers.1.mlp.up_proj.weight",
            "vision_tower.embed.weight",
        ]
        .map(String::from);
        assert_eq!(nearest(&names, "layers.1.mlp.up_proj.weight"), Some(&names[1]));
        assert_eq!(nearest(&names, "norm.scale"), None);
    }
}
