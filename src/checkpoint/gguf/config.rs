//! [`ModelConfig`] from GGUF metadata of the architectures `gemma3` and `gemma4`. The defaults are
//! llama.cpp's (`src/models/gemma3.cpp`, `src/models/gemma4.cpp`, `conversion/gemma.py`).

use crate::checkpoint::gguf::container::{Gguf, GgufTensor};
use crate::checkpoint::gguf::value::Value;
use crate::error::{Error, Result, quoted};
use crate::model::config::validate::MAX_LAYERS;
use crate::model::config::{
    Architecture, AttentionKind, Experts, LayerConfig, ModelConfig, PerLayerInput, Rope, share_kv,
};
use crate::quant::Dtype;

/// llama.cpp recognizes this model by its layers. Its queries are scaled by
/// (hidden_size/heads)^-0.5.
const GEMMA3_27B_LAYERS: usize = 62;
/// Layers of Gemma 3 1B, and of 4B, 12B and 27B, whose full layers scale positions by 8.
const GEMMA3_1B_LAYERS: usize = 26;
const GEMMA3_SCALED_LAYERS: [usize; 3] = [34, 48, GEMMA3_27B_LAYERS];
/// The tensor that proportional RoPE depends on.
pub(crate) const FREQUENCY_FACTORS: &str = "rope_freqs.weight";
/// Keys and the table of the parts that E4B and E2B add to dense layers.
const PER_LAYER_SIZE: &str = "embedding_length_per_layer_input";
const SHARED_LAYERS: &str = "attention.shared_kv_layers";
/// Keys of a mixture of experts.
const EXPERT_COUNT: &str = "expert_count";
const PER_LAYER_TABLE: &str = "per_layer_token_embd.weight";
/// Frequency factors from here on mean "no rotation" (converters write 1e30).
const NO_ROTATION: f32 = 1e20;

impl ModelConfig {
    /// Reads the metadata of a GGUF file, or of all parts of a split one in order. The first part
    /// has the metadata, and any part may have tensors.
    ///
    /// Errors: [`Error::Config`] for values that are missing or wrong, [`Error::Unsupported`] for
    /// other architectures and features that this crate lacks, [`Error::Tensor`].
    pub fn from_gguf(parts: &[Gguf]) -> Result<Self> {
        let file = Metadata::new(parts)?;
        file.refuse_unsupported()?;
        let gemma4 = file.architecture == Architecture::Gemma4;
        let count = file.size("block_count")?;
        if count > MAX_LAYERS {
            return Err(Error::Config(format!("block_count = {count} is more than {MAX_LAYERS}")));
        }
        let hidden_size = file.size("embedding_length")?;
        let layers = file.layers(count, hidden_size)?;
        let embedding =
            file.tensor("token_embd.weight").ok_or_else(|| missing_tensor("token_embd.weight"))?;
        let config = ModelConfig {
            attention_scale: match layers.first() {
                Some(layer) if !gemma4 => gemma3_attention_scale(count, hidden_size, layer),
                _ => 1.0,
            },
            rms_norm_eps: file.rms_norm_eps()? as f32,
            // 0 means none, as in llama.cpp.
            final_logit_softcap: file.final_logit_softcap(count)?.filter(|cap| *cap != 0.0),
            layer_scalar: gemma4 && file.tensor("blk.0.layer_output_scale.weight").is_some(),
            tie_word_embeddings: file.tensor("output.weight").is_none(),
            max_position_embeddings: file.size("context_length")?,
            per_layer_input: file.per_layer_input()?,
            // Converters have already added the 1 to the norms' weights.
            ..ModelConfig::new(
                file.architecture,
                *embedding.shape.first().unwrap_or(&0),
                hidden_size,
                layers,
            )
        };
        config.validate()?;
        Ok(config)
    }
}

fn gemma3_attention_scale(layers: usize, hidden_size: usize, layer: &LayerConfig) -> f32 {
    let scalar = match layers {
        GEMMA3_27B_LAYERS => hidden_size / layer.n_heads.max(1),
        _ => layer.head_dim,
    };
    (scalar as f32).powf(-0.5)
}

fn missing_tensor(name: &str) -> Error {
    Error::tensor(name, "missing from the checkpoint")
}

/// The model's metadata: keys below are without the architecture's prefix.
struct Metadata<'p, 'a> {
    parts: &'p [Gguf<'a>],
    first: &'p Gguf<'a>,
    prefix: &'a str,
    architecture: Architecture,
}

impl<'p, 'a> Metadata<'p, 'a> {
    fn new(parts: &'p [Gguf<'a>]) -> Result<Self> {
        let first =
            parts.first().ok_or_else(|| Error::Config("a GGUF checkpoint without files".into()))?;
        let key = "general.architecture";
        let prefix = first.text(key).map_err(Error::Config)?;
        let prefix = prefix.ok_or_else(|| Error::Config(format!("{key} is missing")))?;
        let architecture = match prefix {
            "gemma3" => Architecture::Gemma3,
            "gemma4" => Architecture::Gemma4,
            other => {
                let reason = format!("architecture {} (gemma3 and gemma4 run)", quoted(other));
                return Err(Error::Unsupported(reason));
            }
        };
        Ok(Metadata { parts, first, prefix, architecture })
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    fn get(&self, key: &str) -> Option<Value<'a>> {
        self.first.get(&self.key(key))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        self.first.float(&self.key(key)).map_err(Error::Config)
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let value = self.first.unsigned(&self.key(key)).map_err(Error::Config)?;
        value.map(|value| self.to_size(key, value)).transpose()
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.required(self.optional_size(key)?, key)
    }

    fn to_size(&self, key: &str, value: u64) -> Result<usize> {
        value
            .try_into()
            .map_err(|_| Error::Config(format!("{} = {value} is out of range", self.key(key))))
    }

    fn required<T>(&self, value: Option<T>, key: &str) -> Result<T> {
        value.ok_or_else(|| Error::Config(format!("{} is missing", self.key(key))))
    }

    fn tensor(&self, name: &str) -> Option<&'p GgufTensor<'a>> {
        self.parts.iter().find_map(|part| part.tensor(name))
    }

    fn rms_norm_eps(&self) -> Result<f64> {
        let key = "attention.layer_norm_rms_epsilon";
        match (self.number(key)?, self.architecture) {
            (None, Architecture::Gemma3) => Ok(self.assumed(key, 1e-6)),
            (eps, _) => self.required(eps, key),
        }
    }

    /// A value of Gemma 3 that its file lacks.
    fn assumed(&self, key: &str, value: f64) -> f64 {
        log::info!("{} is not in the file: {value:?}, as Gemma 3 has it", self.key(key));
        value
    }

    /// Whether an older Ollama converted the file: it has no `rope.freq_base`.
    fn is_old_ollama(&self) -> bool {
        self.architecture == Architecture::Gemma3 && self.get("rope.freq_base").is_none()
    }

    fn final_logit_softcap(&self, layers: usize) -> Result<Option<f32>> {
        let key = "final_logit_softcapping";
        let cap = self.number(key)?;
        if cap.is_some() && layers == GEMMA3_1B_LAYERS && self.is_old_ollama() {
            // Ollama itself undoes this value.
            log::warn!("{} is overridden: Gemma 3 1B has none", self.key(key));
            return Ok(None);
        }
        Ok(cap.map(|cap| cap as f32))
    }

    /// A value that a file gives once for all layers, or for each layer.
    fn per_layer(&self, key: &str, layers: usize) -> Result<Option<Vec<Value<'a>>>> {
        match self.get(key) {
            Some(Value::Array(array)) if array.len() != layers => {
                let (key, len) = (self.key(key), array.len());
                Err(Error::Config(format!("{key} has {len} values for {layers} layers")))
            }
            Some(Value::Array(array)) => Ok(Some(array.iter().collect())),
            Some(value) => Ok(Some(vec![value; layers])),
            None => Ok(None),
        }
    }

    fn sizes(&self, key: &str, layers: usize) -> Result<Vec<usize>> {
        let values = self.required(self.per_layer(key, layers)?, key)?;
        let size = |value: Value| match value.unsigned() {
            Some(value) => self.to_size(key, value),
            None => Err(Error::Config(format!("{} is not a whole number", self.key(key)))),
        };
        values.into_iter().map(size).collect()
    }

    /// Errors with the name of the first unsupported feature.
    fn refuse_unsupported(&self) -> Result<()> {
        let gemma3_lacks: &[_] = match self.architecture {
            Architecture::Gemma3 => &[
                (PER_LAYER_SIZE, "per-layer embeddings"),
                (SHARED_LAYERS, "KV sharing between layers"),
                (EXPERT_COUNT, "mixture of experts"),
            ],
            Architecture::Gemma4 => &[],
        };
        let prediction = ("nextn_predict_layers", "multi-token prediction layers");
        for &(key, feature) in gemma3_lacks.iter().chain(&[prediction]) {
            let key = self.key(key);
            if let Some(size @ 1..) = self.first.unsigned(&key).map_err(Error::Config)? {
                return Err(Error::Unsupported(format!("{feature} ({key} = {size})")));
            }
        }
        let causal = self.key("attention.causal");
        if self.first.flag(&causal).map_err(Error::Config)? == Some(false) {
            return Err(Error::Unsupported(format!("bidirectional attention ({causal})")));
        }
        match self.number("attn_logit_softcapping")? {
            Some(cap) if cap != 0.0 => Err(Error::Unsupported(format!(
                "attention logit softcapping ({} = {cap})",
                self.key("attn_logit_softcapping")
            ))),
            _ => Ok(()),
        }
    }

    /// Per-layer embeddings, unless their size is 0. The tensor gives the table's number of rows.
    fn per_layer_input(&self) -> Result<Option<PerLayerInput>> {
        let Some(size @ 1..) = self.optional_size(PER_LAYER_SIZE)? else { return Ok(None) };
        let table = self.tensor(PER_LAYER_TABLE).ok_or_else(|| missing_tensor(PER_LAYER_TABLE))?;
        Ok(Some(PerLayerInput { size, vocab_size: *table.shape.first().unwrap_or(&0) }))
    }

    /// The experts of every layer, unless their number is 0.
    fn experts(&self) -> Result<Option<Experts>> {
        let Some(count @ 1..) = self.optional_size(EXPERT_COUNT)? else { return Ok(None) };
        Ok(Some(Experts {
            count,
            top_k: self.size("expert_used_count")?,
            intermediate_size: self.size("expert_feed_forward_length")?,
        }))
    }

    fn layers(&self, count: usize, hidden_size: usize) -> Result<Vec<LayerConfig>> {
        let gemma4 = self.architecture == Architecture::Gemma4;
        let n_heads = self.sizes("attention.head_count", count)?;
        let n_kv_heads = self.sizes("attention.head_count_kv", count)?;
        let intermediate_sizes = self.sizes("feed_forward_length", count)?;
        let sliding = self.sliding_layers(count)?;
        let window = match sliding.contains(&true) {
            true => self.size("attention.sliding_window")?,
            false => 0,
        };
        let first_heads = n_heads.first().copied().unwrap_or(1).max(1);
        let full_dim = self.head_dim("")?.unwrap_or(hidden_size / first_heads);
        let sliding_dim = match self.head_dim("_swa")? {
            None if gemma4 => return self.required(None, "attention.key_length_swa"),
            dim => dim.unwrap_or(full_dim),
        };
        let full_rope = self.full_rope(full_dim)?;
        let sliding_rope = self.sliding_rope(sliding_dim)?;
        let experts = self.experts()?;
        let layer = |index: usize| LayerConfig {
            attention: match sliding[index] {
                true => AttentionKind::Sliding { window },
                false => AttentionKind::Full,
            },
            n_heads: n_heads[index],
            n_kv_heads: n_kv_heads[index],
            head_dim: if sliding[index] { sliding_dim } else { full_dim },
            rope: if sliding[index] { sliding_rope } else { full_rope },
            k_eq_v: gemma4
                && !sliding[index]
                && self.tensor(&format!("blk.{index}.attn_v.weight")).is_none(),
            intermediate_size: intermediate_sizes[index],
            kv_from: None,
            experts,
        };
        let mut layers: Vec<LayerConfig> = (0..count).map(layer).collect();
        share_kv(
            &mut layers,
            self.optional_size(SHARED_LAYERS)?.unwrap_or(0),
            &self.key(SHARED_LAYERS),
        )?;
        Ok(layers)
    }

    /// Which layers have a sliding window.
    fn sliding_layers(&self, count: usize) -> Result<Vec<bool>> {
        let key = "attention.sliding_window_pattern";
        let not_bools = || Error::Config(format!("{} is not one bool per layer", self.key(key)));
        if let Some(Value::Array(_)) = self.get(key) {
            let values = self.per_layer(key, count)?.unwrap_or_default();
            return values.into_iter().map(|value| value.flag().ok_or_else(not_bools)).collect();
        }
        if self.architecture == Architecture::Gemma4 {
            // llama.cpp takes one value as "all layers", other programs as a period. This is
            // ambiguous.
            return Err(not_bools());
        }
        if matches!(self.optional_size("attention.sliding_window")?, None | Some(0)) {
            return Ok(vec![false; count]);
        }
        Ok(match self.optional_size(key)?.unwrap_or(6) {
            0 => vec![true; count],
            period => (1..=count).map(|layer| layer % period != 0).collect(),
        })
    }

    /// Key length of full (`""`) or sliding (`"_swa"`) layers. The value length must be the same.
    fn head_dim(&self, kind: &str) -> Result<Option<usize>> {
        let key = format!("attention.key_length{kind}");
        let key_length = self.optional_size(&key)?;
        match (key_length, self.optional_size(&format!("attention.value_length{kind}"))?) {
            (Some(k), Some(v)) if k != v => Err(Error::Unsupported(format!(
                "values longer than keys ({} = {k}, values have {v})",
                self.key(&key)
            ))),
            _ => Ok(key_length),
        }
    }

    /// RoPE rotates whole heads, unless `rope_freqs.weight` says otherwise.
    fn whole_head(&self, key: &str, head_dim: usize) -> Result<usize> {
        match self.optional_size(key)? {
            Some(dims) if dims != head_dim => Err(Error::Unsupported(format!(
                "RoPE over a part of the head ({} = {dims})",
                self.key(key)
            ))),
            _ => Ok(head_dim / 2),
        }
    }

    fn sliding_rope(&self, head_dim: usize) -> Result<Rope> {
        // Gemma 3 files rarely have it. Sliding layers do not scale positions.
        let theta = match self.number("rope.freq_base_swa")? {
            Some(theta) => theta,
            // Ollama's name for the key.
            None => self.number("rope.local.freq_base")?.unwrap_or(1e4),
        } as f32;
        let key = match self.architecture {
            Architecture::Gemma3 => "rope.dimension_count",
            Architecture::Gemma4 => "rope.dimension_count_swa",
        };
        Ok(Rope { theta, rotated_pairs: self.whole_head(key, head_dim)?, scale: 1.0 })
    }

    fn full_rope(&self, head_dim: usize) -> Result<Rope> {
        let theta = self.full_theta()? as f32;
        let rope = Rope {
            theta,
            rotated_pairs: self.whole_head("rope.dimension_count", head_dim)?,
            scale: self.linear_scaling()? as f32,
        };
        match self.architecture {
            Architecture::Gemma3 => Ok(rope),
            Architecture::Gemma4 => self.with_frequency_factors(rope),
        }
    }

    fn full_theta(&self) -> Result<f64> {
        let key = "rope.freq_base";
        match (self.number(key)?, self.architecture) {
            (None, Architecture::Gemma3) => match self.number("rope.global.freq_base")? {
                Some(theta) => Ok(theta),
                None => Ok(self.assumed(key, 1e6)),
            },
            (theta, _) => self.required(theta, key),
        }
    }

    /// The position scaling of models from an older Ollama, which does not store it.
    fn unwritten_scaling(&self) -> Result<f64> {
        let has_scaling = GEMMA3_SCALED_LAYERS.contains(&self.size("block_count")?);
        match has_scaling && self.is_old_ollama() {
            true => Ok(self.assumed("rope.scaling.factor", 8.0)),
            false => Ok(1.0),
        }
    }

    fn linear_scaling(&self) -> Result<f64> {
        let key = self.key("rope.scaling.type");
        match self.first.text(&key).map_err(Error::Config)? {
            Some("none") => return Ok(1.0),
            None | Some("linear") => {}
            Some(other) => {
                return Err(Error::Unsupported(format!("RoPE scaling {} ({key})", quoted(other))));
            }
        }
        let factor = match self.number("rope.scaling.factor")? {
            Some(factor) => factor,
            None => match self.number("rope.scale_linear")? {
                Some(factor) => factor,
                None => self.unwritten_scaling()?,
            },
        };
        Ok(if factor == 0.0 { 1.0 } else { factor })
    }

    /// Proportional RoPE: `rope_freqs.weight`, shape `[head_dim/2]`, divides the angles of full
    /// layers. It begins with equal small factors. The other factors are so large that their pairs
    /// do not rotate.
    fn with_frequency_factors(&self, rope: Rope) -> Result<Rope> {
        let name = FREQUENCY_FACTORS;
        let found =
            self.parts.iter().find_map(|part| part.tensor(name).map(|tensor| (part, tensor)));
        let (part, tensor) = found.ok_or_else(|| missing_tensor(name))?;
        if tensor.dtype != Some(Dtype::F32) || tensor.shape != [rope.rotated_pairs] {
            let reason = format!("is not F32 of shape [{}]", rope.rotated_pairs);
            return Err(Error::tensor(name, reason));
        }
        let (chunks, _) = part.data(tensor).as_chunks::<4>();
        if chunks.len() != rope.rotated_pairs {
            return Err(Error::tensor(name, "its bytes were not read"));
        }
        let factors = || chunks.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let factor = factors().next().unwrap_or(1.0);
        let rotated_pairs =
            factors().take_while(|&other| other == factor && other < NO_ROTATION).count();
        if factors().skip(rotated_pairs).any(|factor| factor.is_nan() || factor < NO_ROTATION) {
            return Err(Error::Unsupported(format!(
                "RoPE factors that differ from pair to pair (tensor {name})"
            )));
        }
        // Without rotated pairs the first factor has no meaning.
        let factor = if rotated_pairs == 0 { 1.0 } else { factor };
        Ok(Rope { rotated_pairs, scale: rope.scale * factor, ..rope })
    }
}
