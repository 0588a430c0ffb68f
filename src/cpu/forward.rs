//! The forward pass: a list of named steps per layer.

use std::ops::Range;

use crate::cpu::kv_cache::KvCache;
use crate::cpu::matrix::StoredMatrix;
use crate::cpu::ops::{self, Attention, KvUpdate};
use crate::cpu::path::Path;
use crate::cpu::weight_rows::WeightRows;
use crate::model::config::{AttentionKind, Experts, LayerConfig, ModelConfig};
use crate::model::weights::{ExpertWeights, LayerWeights, ModelWeights, PerLayerWeights};

pub(super) type Weights = ModelWeights<StoredMatrix, Vec<f32>>;

/// A model and values derived from its config.
pub(super) struct Model {
    pub path: Path,
    pub config: ModelConfig,
    pub weights: Weights,
    /// For each layer, `[head_dim/2]`.
    pub inverse_frequencies: Vec<Vec<f32>>,
}

/// The rows of a step that belong to one sequence, at consecutive positions.
pub(super) struct Segment<'a> {
    pub rows: Range<usize>,
    /// Position of the first row.
    pub position: usize,
    /// For each layer that has its own keys.
    pub caches: &'a mut [KvCache],
}

/// One layer, with its index, config and weights.
struct Layer<'a> {
    index: usize,
    config: &'a LayerConfig,
    weights: &'a LayerWeights<StoredMatrix, Vec<f32>>,
}

impl Model {
    pub fn new(config: ModelConfig, weights: Weights, path: Path) -> Self {
        let frequencies = |layer: &LayerConfig| layer.rope.inverse_frequencies(layer.head_dim);
        let inverse_frequencies = config.layers.iter().map(frequencies).collect();
        Model { path, config, weights, inverse_frequencies }
    }

    /// Bytes of weights that one token does not read.
    pub fn unread_bytes(&self) -> u64 {
        let table = self.weights.per_layer.as_ref().map_or(0, |tables| tables.table.bytes());
        let layers = self.config.layers.iter().zip(&self.weights.layers);
        let experts = layers.filter_map(|(config, weights)| {
            let weights = weights.experts.as_ref()?;
            Some(config.experts?.unread(weights.gate_up.bytes() + weights.down.bytes()))
        });
        table + experts.sum::<u64>()
    }

    /// Runs `tokens`, one for each row, through all layers and stores their keys and values. The
    /// rows of `segments` follow one another. Returns the normed hidden states, `[rows, hidden]`,
    /// for [`Model::logits`]. Unless they are `wanted`, layers without their own keys are skipped.
    pub fn forward(&self, tokens: &[u32], segments: &mut [Segment<'_>], wanted: bool) -> Vec<f32> {
        let (config, weights) = (&self.config, &self.weights);
        let (rows, hidden, eps) = (tokens.len(), config.hidden_size, config.rms_norm_eps);

        // The residual stream and its normed form, which the next matrices read.
        let mut x = vec![0.0; rows * hidden]; // [rows, hidden]
        let mut normed = vec![0.0; rows * hidden]; // [rows, hidden]
        ops::embed(&weights.embed_tokens, tokens, config.embedding_scale(), &mut x);
        ops::rms_norm(&x, Some(self.input_norm(0)), hidden, eps, &mut normed);
        let per_layer = self.per_layer_inputs(tokens, &x); // [rows, layers, size]

        let layers = if wanted { &config.layers } else { config.cached_layers() };
        for (index, (config, weights)) in layers.iter().zip(&weights.layers).enumerate() {
            let layer = Layer { index, config, weights };
            let branch = self.attention(&layer, &normed, segments); // [rows, hidden]
            let (post, next) = (&weights.post_attention_norm, &weights.pre_feedforward_norm);
            self.path.add_rms_norm(&mut x, &branch, post, 1.0, next, eps, &mut normed);

            let mut branch = self.feed_forward(&layer, &normed); // [rows, hidden]
            if let (Some(experts), Some(sizes)) = (&weights.experts, config.experts) {
                self.add_experts(experts, sizes, &x, &mut branch);
            }
            let (post, next) = (&weights.post_feedforward_norm, self.input_norm(index + 1));
            let Some(extra) = &weights.per_layer else {
                self.path.add_rms_norm(
                    &mut x,
                    &branch,
                    post,
                    weights.scalar,
                    next,
                    eps,
                    &mut normed,
                );
                continue;
            };
            ops::rms_norm_add(&mut x, &branch, post, eps);
            let branch = self.take_per_layer_input(index, extra, &x, &per_layer); // [rows, hidden]
            self.path.add_rms_norm(
                &mut x,
                &branch,
                &extra.norm,
                weights.scalar,
                next,
                eps,
                &mut normed,
            );
        }
        normed
    }

    /// All layers' vectors of `tokens` with the embeddings `x` `[rows, hidden]`. Returns `[rows,
    /// layers, size]`, or an empty vector.
    fn per_layer_inputs(&self, tokens: &[u32], x: &[f32]) -> Vec<f32> {
        let Some(tables) = &self.weights.per_layer else { return Vec::new() };
        let mut vectors = self.path.matmul(&tables.projection, x);
        let scale = (self.config.hidden_size as f32).powf(-0.5);
        let eps = self.config.rms_norm_eps;
        ops::per_layer_inputs(&mut vectors, &tables.table, tokens, &tables.norm, scale, eps);
        vectors
    }

    /// Computes `projection(gelu(gate(x)) · vector)` of `x` `[rows, hidden]`.
    fn take_per_layer_input(
        &self,
        index: usize,
        weights: &PerLayerWeights<StoredMatrix, Vec<f32>>,
        x: &[f32],
        vectors: &[f32],
    ) -> Vec<f32> {
        let mut gate = self.path.matmul(&weights.gate, x); // [rows, size]
        let (columns, size) = (self.config.per_layer_columns(), weights.gate.out_features());
        let vectors = ops::per_layer_columns(vectors, columns, size, index);
        self.path.gelu_mul(&mut gate, &vectors);
        self.path.matmul(&weights.projection, &gate)
    }

    /// Logits `[rows, vocab]` of normed hidden states `[rows, hidden]`.
    pub fn logits(&self, normed: &[f32]) -> Vec<f32> {
        let lm_head = self.weights.lm_head.as_ref().unwrap_or(&self.weights.embed_tokens);
        let mut logits = self.path.matmul(lm_head, normed);
        if let Some(cap) = self.config.final_logit_softcap {
            self.path.softcap(&mut logits, cap);
        }
        logits
    }

    /// The norm before layer `index`, or before lm_head after the last layer.
    fn input_norm(&self, index: usize) -> &[f32] {
        self.weights.layers.get(index).map_or(&self.weights.norm, |layer| &layer.input_norm)
    }

    /// Computes `o_proj(sdpa(q, k, v))` of `normed` `[rows, hidden]`.
    fn attention(
        &self,
        layer: &Layer<'_>,
        normed: &[f32],
        segments: &mut [Segment<'_>],
    ) -> Vec<f32> {
        let LayerConfig { n_heads, n_kv_heads, head_dim, .. } = *layer.config;
        let eps = self.config.rms_norm_eps;
        let inverse_frequencies = &self.inverse_frequencies[layer.index];
        let attention = Attention {
            n_heads,
            scale: self.config.attention_scale,
            window: match layer.config.attention {
                AttentionKind::Sliding { window } => Some(window),
                AttentionKind::Full => None,
            },
        };
        let LayerWeights { q_proj, k_proj, v_proj, .. } = layer.weights;
        let projections: Vec<_> = [k_proj, v_proj].into_iter().flatten().collect();
        let projections = [&[q_proj][..], &projections].concat();
        let mut products = self.path.matmuls(&projections, normed).into_iter();
        let mut q = products.next().unwrap_or_default(); // [rows, n_heads, head_dim]
        let (k, v) = (products.next(), products.next()); // [rows, n_kv_heads, head_dim]

        let mut attended = vec![0.0; q.len()]; // [rows, n_heads, head_dim]
        for segment in segments {
            let cache = &mut segment.caches[self.config.kv_layer(layer.index)];
            let q_rows = scaled(&segment.rows, n_heads * head_dim);
            let kv_rows = scaled(&segment.rows, n_kv_heads * head_dim);
            let q = &mut q[q_rows.clone()];
            self.path.qk_norm_rope(
                q,
                n_heads,
                &layer.weights.q_norm,
                eps,
                inverse_frequencies,
                segment.position,
            );
            if let (Some(k), Some(k_norm)) = (&k, &layer.weights.k_norm) {
                let v = v.as_ref().unwrap_or(k);
                let update =
                    KvUpdate { k_norm, v_norm: self.config.v_norm, eps, inverse_frequencies };
                ops::rope_kv_update(
                    &k[kv_rows.clone()],
                    &v[kv_rows],
                    update,
                    segment.position,
                    cache,
                );
            }
            self.path.sdpa(q, cache, segment.position, attention, &mut attended[q_rows]);
        }
        self.path.matmul(&layer.weights.o_proj, &attended)
    }

    /// Computes `down(gelu(gate(x)) · up(x))` of `normed` `[rows, hidden]`.
    fn feed_forward(&self, layer: &Layer<'_>, normed: &[f32]) -> Vec<f32> {
        let weights = [&layer.weights.gate_proj, &layer.weights.up_proj];
        let mut products = self.path.matmuls(&weights, normed).into_iter();
        let mut gate = products.next().unwrap_or_default(); // [rows, intermediate]
        let up = products.next().unwrap_or_default(); // [rows, intermediate]
        self.path.gelu_mul(&mut gate, &up);
        self.path.matmul(&layer.weights.down_proj, &gate)
    }

    /// Joins the output of the experts for the residual stream `x` and the MLP's, both
    /// `[rows, hidden]`.
    fn add_experts(
        &self,
        weights: &ExpertWeights<StoredMatrix, Vec<f32>>,
        sizes: Experts,
        x: &[f32],
        mlp: &mut [f32],
    ) {
        let (hidden, eps) = (self.config.hidden_size, self.config.rms_norm_eps);
        let (mut normed, mut routed) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let (norm, scale) = (&weights.pre_norm, &weights.router_scale);
        ops::expert_inputs(x, norm, scale, eps, &mut normed, &mut routed);
        // The router is exact on both paths, because near scores decide.
        let mut logits = vec![0.0; x.len() / hidden * sizes.count];
        ops::matmul(&weights.router, &routed, &mut logits);
        let (chosen, factors) = ops::route(&logits, &weights.per_expert_scale, sizes.top_k);

        let (n, top_k) = (sizes.intermediate_size, sizes.top_k);
        let gate_up = self.path.experts_matmul(&weights.gate_up, 2 * n, &normed, top_k, &chosen);
        let mut acts = vec![0.0; chosen.len() * n]; // [rows, top_k, n]
        ops::gelu_mul_pairs(&gate_up, n, &mut acts);
        let results = self.path.experts_matmul(&weights.down, hidden, &acts, 1, &chosen);
        let mut sum = vec![0.0; x.len()];
        ops::sum_experts(&factors, &results, hidden, &mut sum);
        ops::join_experts(mlp, &mut sum, &weights.post_mlp_norm, &weights.post_norm, eps);
    }
}

/// Number of elements in rows of `width` columns.
pub(super) fn scaled(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}
