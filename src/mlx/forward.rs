//! The forward pass in MLX's operations: a list of named steps per layer.

use std::collections::{HashMap, hash_map::Entry};
use std::ops::Range;

use crate::error::Result;
use crate::mlx::kv_cache::KvCache;
use crate::mlx::mask::{Sight, Visible};
use crate::mlx::matrix::MlxMatrix;
use crate::mlx::ops::{Array, Dtype, Mask};
use crate::model::config::{AttentionKind, Experts, LayerConfig, ModelConfig};
use crate::model::weights::{ExpertWeights, LayerWeights, ModelWeights, PerLayerWeights};

type Weights = ModelWeights<MlxMatrix, Array>;

/// A model and values derived from its config.
pub(super) struct Model {
    pub config: ModelConfig,
    weights: Weights,
    /// For each layer, `[head_dim/2]`: positions per radian of rotation. They are infinite for
    /// pairs that do not rotate.
    periods: Vec<Array>,
    /// Type of activations.
    compute: Dtype,
    /// Whether MLX fuses the MLP's activation into one kernel. On a CPU it would need a C++
    /// compiler for that.
    fused: bool,
}

/// The rows of a step that belong to one sequence, at consecutive positions.
pub(super) struct Segment<'a> {
    pub rows: Range<usize>,
    /// Position of the first row.
    pub position: usize,
    /// For each layer that has its own keys.
    pub caches: &'a mut [KvCache],
    /// By window, because all layers with the same window have the same mask.
    sights: HashMap<Option<usize>, (Range<usize>, Mask)>,
}

impl<'a> Segment<'a> {
    pub fn new(rows: Range<usize>, position: usize, caches: &'a mut [KvCache]) -> Self {
        Segment { rows, position, caches, sights: HashMap::new() }
    }
}

/// One layer, with its index, config and weights.
struct Layer<'a> {
    index: usize,
    config: &'a LayerConfig,
    weights: &'a LayerWeights<MlxMatrix, Array>,
}

impl Model {
    pub fn new(config: ModelConfig, weights: Weights, compute: Dtype, fused: bool) -> Result<Self> {
        let periods = |layer: &LayerConfig| {
            let turns = layer.rope.inverse_frequencies(layer.head_dim);
            let periods: Vec<f32> = turns.iter().map(|turn| 1.0 / turn).collect();
            Array::new(bytemuck::cast_slice(&periods), &[periods.len()], Dtype::F32)
        };
        let periods = config.layers.iter().map(periods).collect::<Result<_>>()?;
        Ok(Model { config, weights, periods, compute, fused })
    }

    /// Runs token ids (u32, `[rows]`) through all layers and stores their keys and values. The rows
    /// of `segments` follow one another. Returns the normed hidden states, `[rows, hidden]`, for
    /// [`Model::logits`].
    pub fn forward(&self, ids: &Array, segments: &mut [Segment<'_>]) -> Result<Array> {
        let (config, weights, eps) = (&self.config, &self.weights, self.config.rms_norm_eps);
        let mut x = weights.embed_tokens.embed(ids, config.embedding_scale())?; // [rows, hidden]
        let vectors = self.per_layer_inputs(ids, &x)?; // [rows, layers·size]
        for (index, (config, weights)) in config.layers.iter().zip(&weights.layers).enumerate() {
            let layer = Layer { index, config, weights };
            let normed = x.rms_norm(Some(&weights.input_norm), eps)?;
            let branch = self.attention(&layer, &normed, segments)?; // [rows, hidden]
            x = x.add(&branch.rms_norm(Some(&weights.post_attention_norm), eps)?)?;

            let normed = x.rms_norm(Some(&weights.pre_feedforward_norm), eps)?;
            let mut branch = self.feed_forward(&layer, &normed)?; // [rows, hidden]
            if let (Some(experts), Some(sizes)) = (&weights.experts, config.experts) {
                let mlp = branch.rms_norm(Some(&experts.post_mlp_norm), eps)?;
                branch = mlp.add(&self.experts(experts, sizes, &x)?)?;
            }
            x = x.add(&branch.rms_norm(Some(&weights.post_feedforward_norm), eps)?)?;
            if let (Some(per_layer), Some(vectors)) = (&weights.per_layer, &vectors) {
                let branch = self.take_per_layer_input(index, per_layer, &x, vectors)?;
                x = x.add(&branch.rms_norm(Some(&per_layer.norm), eps)?)?;
            }
            if weights.scalar != 1.0 {
                x = x.scale(weights.scalar)?;
            }
        }
        x.rms_norm(Some(&weights.norm), eps)
    }

    /// All layers' vectors of tokens with the embeddings `x` `[rows, hidden]`. Returns `[rows,
    /// layers·size]`, if there are any.
    fn per_layer_inputs(&self, ids: &Array, x: &Array) -> Result<Option<Array>> {
        let (Some(tables), Some(input)) = (&self.weights.per_layer, self.config.per_layer_input)
        else {
            return Ok(None);
        };
        let (rows, columns) = (x.shape()[0], self.config.per_layer_columns());
        let by_layer = |x: &Array| x.reshape(&[rows, self.config.layers.len(), input.size]);
        let projected =
            tables.projection.linear(x)?.scale((self.config.hidden_size as f32).powf(-0.5))?;
        let normed =
            by_layer(&projected)?.rms_norm(Some(&tables.norm), self.config.rms_norm_eps)?;
        let looked_up = by_layer(&tables.table.embed(ids, (input.size as f32).sqrt())?)?;
        let vectors = normed.add(&looked_up)?.scale(std::f32::consts::FRAC_1_SQRT_2)?;
        vectors.reshape(&[rows, columns]).map(Some)
    }

    /// Computes `projection(gelu(gate(x)) · vector)` of `x` `[rows, hidden]`.
    fn take_per_layer_input(
        &self,
        index: usize,
        weights: &PerLayerWeights<MlxMatrix, Array>,
        x: &Array,
        vectors: &Array,
    ) -> Result<Array> {
        let size = self.config.per_layer_input.map_or(0, |input| input.size);
        let (start, stop) = ([0, index * size], [x.shape()[0], (index + 1) * size]);
        let vector = vectors.slice(&start, &stop)?; // [rows, size]
        let gate = weights.gate.linear(x)?; // [rows, size]
        weights.projection.linear(&gate.gelu_mul(&vector, self.fused)?)
    }

    /// Logits (f32, `[rows, vocab]`) of normed hidden states `[rows, hidden]`.
    pub fn logits(&self, normed: &Array) -> Result<Array> {
        let lm_head = self.weights.lm_head.as_ref().unwrap_or(&self.weights.embed_tokens);
        let mut logits = lm_head.linear(normed)?;
        if self.compute != Dtype::F32 {
            logits = logits.astype(Dtype::F32)?;
        }
        match self.config.final_logit_softcap {
            Some(cap) => logits.softcap(cap),
            None => Ok(logits),
        }
    }

    /// Computes `o_proj(sdpa(q, k, v))` of `normed` `[rows, hidden]`.
    fn attention(
        &self,
        layer: &Layer<'_>,
        normed: &Array,
        segments: &mut [Segment<'_>],
    ) -> Result<Array> {
        let q = layer.weights.q_proj.linear(normed)?; // [rows, n_heads·head_dim]
        // Each is [rows, n_kv_heads·head_dim]. None if another layer's are used.
        let k = layer.weights.k_proj.as_ref().map(|k_proj| k_proj.linear(normed)).transpose()?;
        let v = layer.weights.v_proj.as_ref().map(|v_proj| v_proj.linear(normed)).transpose()?;
        let kv = k.as_ref().map(|k| (k, v.as_ref().unwrap_or(k)));
        let attended = match segments {
            [segment] => self.attend(layer, &q, kv, segment)?,
            segments => {
                let attend = |segment: &mut Segment<'_>| {
                    let part = |x: &Array| rows_of(x, &segment.rows);
                    let (q, kv) =
                        (part(&q)?, kv.map(|(k, v)| Ok((part(k)?, part(v)?))).transpose()?);
                    self.attend(layer, &q, kv.as_ref().map(|(k, v)| (k, v)), segment)
                };
                Array::concatenate(&segments.iter_mut().map(attend).collect::<Result<Vec<_>>>()?)?
            }
        };
        layer.weights.o_proj.linear(&attended)
    }

    /// Attention of one sequence's rows over its earlier positions and these rows. Returns `[rows,
    /// n_heads·head_dim]`.
    fn attend(
        &self,
        layer: &Layer<'_>,
        q: &Array,
        kv: Option<(&Array, &Array)>,
        segment: &mut Segment<'_>,
    ) -> Result<Array> {
        let LayerConfig { n_heads, n_kv_heads, head_dim, .. } = *layer.config;
        let (rows, position, eps) =
            (segment.rows.len(), segment.position, self.config.rms_norm_eps);
        let periods = &self.periods[layer.index];
        let heads = |x: &Array, n: usize| x.reshape(&[1, rows, n, head_dim]);
        let turned = |x: &Array, n: usize, norm: &Array| {
            heads(x, n)?.rms_norm(Some(norm), eps)?.swap_heads()?.rope(periods, head_dim, position)
        };
        let q = turned(q, n_heads, &layer.weights.q_norm)?; // [1, n_heads, rows, head_dim]
        let cache = &mut segment.caches[self.config.kv_layer(layer.index)];
        if let (Some((k, v)), Some(k_norm)) = (kv, &layer.weights.k_norm) {
            let k = turned(k, n_kv_heads, k_norm)?; // [1, n_kv_heads, rows, head_dim]
            let mut v = heads(v, n_kv_heads)?;
            if self.config.v_norm {
                v = v.rms_norm(None, eps)?;
            }
            cache.update(&k, &v.swap_heads()?, position)?;
        }

        let window = match layer.config.attention {
            AttentionKind::Sliding { window } => Some(window),
            AttentionKind::Full => None,
        };
        let (slots, mask) = match segment.sights.entry(window) {
            Entry::Occupied(sight) => sight.into_mut(),
            Entry::Vacant(place) => place.insert(mask(cache.sight(position, rows), rows)?),
        };
        let (keys, values) = cache.slots(slots)?; // [1, n_kv_heads, slots, head_dim]
        let attended = q.sdpa(&keys, &values, self.config.attention_scale, mask)?;
        let attended = attended.swap_heads()?.reshape(&[rows, n_heads * head_dim])?;
        // An f32 cache makes attention's output f32.
        if attended.dtype() == Some(self.compute) {
            Ok(attended)
        } else {
            attended.astype(self.compute)
        }
    }

    /// Computes `down(gelu(gate(x)) · up(x))` of `normed` `[rows, hidden]`.
    fn feed_forward(&self, layer: &Layer<'_>, normed: &Array) -> Result<Array> {
        let gate = layer.weights.gate_proj.linear(normed)?; // [rows, intermediate]
        let up = layer.weights.up_proj.linear(normed)?; // [rows, intermediate]
        layer.weights.down_proj.linear(&gate.gelu_mul(&up, self.fused)?)
    }

    /// The normed output of each row's experts for the residual stream `x` `[rows, hidden]`.
    fn experts(
        &self,
        weights: &ExpertWeights<MlxMatrix, Array>,
        sizes: Experts,
        x: &Array,
    ) -> Result<Array> {
        let (rows, eps) = (x.shape()[0], self.config.rms_norm_eps);
        let (hidden, n, top_k) = (self.config.hidden_size, sizes.intermediate_size, sizes.top_k);
        // The router computes in f32, because near scores decide.
        let routed = x.astype(Dtype::F32)?.rms_norm(Some(&weights.router_scale), eps)?;
        let logits = weights.router.linear(&routed.scale((hidden as f32).powf(-0.5))?)?;
        let chosen = logits.top_k(top_k)?; // [rows, top_k]
        let factors = logits.chosen_weights(&chosen, &weights.per_expert_scale)?;

        let normed = x.rms_norm(Some(&weights.pre_norm), eps)?.reshape(&[rows, 1, hidden])?;
        let both = weights.gate_up.gather_linear(&normed, &chosen, sizes.count)?;
        let both = both.reshape(&[rows * top_k, 2 * n])?;
        let gate = both.slice(&[0, 0], &[rows * top_k, n])?;
        let up = both.slice(&[0, n], &[rows * top_k, 2 * n])?;
        let acts = gate.gelu_mul(&up, self.fused)?.reshape(&[rows, top_k, n])?;
        let results = weights.down.gather_linear(&acts, &chosen, sizes.count)?;
        results.weighted_sum(&factors)?.rms_norm(Some(&weights.post_norm), eps)
    }
}

/// The visible slots, and the mask on the device.
fn mask(Sight { slots, mask }: Sight, rows: usize) -> Result<(Range<usize>, Mask)> {
    let mask = match mask {
        Visible::All => Mask::None,
        Visible::Causal => Mask::Causal,
        Visible::Some(sees) => {
            let bytes: Vec<u8> = sees.into_iter().map(u8::from).collect();
            Mask::Bool(Array::new(&bytes, &[rows, slots.len()], Dtype::Bool)?)
        }
    };
    Ok((slots, mask))
}

/// Rows of a matrix.
pub(super) fn rows_of(x: &Array, rows: &Range<usize>) -> Result<Array> {
    x.slice(&[rows.start, 0], &[rows.end, x.shape()[1]])
}
