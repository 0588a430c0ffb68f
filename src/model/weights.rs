//! Which tensors a model has, and their way from a checkpoint into a backend, a slice at a time.

use std::{borrow::Cow, ops::Range};

use crate::{
    Error, Result,
    checkpoint::names::LAYER_TENSORS,
    model::{
        config::{LayerConfig, ModelConfig, PerLayerInput},
        kv::CacheType,
        source::{TensorInfo, TensorSource},
    },
    quant::{self, Dtype, PackFormat, PackedRows, Quantize},
};

/// Source bytes that are packed or sent at once: bounds what loading holds on the host.
const SLICE_BYTES: usize = 32 << 20;
/// A slice has a multiple of so many rows, unless it ends a part of the matrix.
const SLICE_ROWS: usize = 16;

const PER_LAYER_TABLE: &str = "embed_tokens_per_layer.weight";
const PER_LAYER_PROJECTION: &str = "per_layer_model_projection.weight";
const PER_LAYER_NORM: &str = "per_layer_projection_norm.weight";

/// How to load a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadOptions {
    pub quantize: Quantize,
    /// Positions that each sequence can hold.
    pub context_length: usize,
    /// Sequences that can be open at once.
    pub max_sequences: usize,
    pub cache_type: CacheType,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions {
            quantize: Quantize::default(),
            context_length: 4096,
            max_sequences: 1,
            cache_type: CacheType::default(),
        }
    }
}

/// Where a backend puts its weights.
#[allow(async_fn_in_trait)] // futures need not be Send: a browser has one thread
pub trait WeightStore {
    type Matrix;
    type Vector;

    /// Takes a matrix in slices: call [`MatrixReader::next`] until it gives `None`.
    async fn matrix(&mut self, reader: MatrixReader<'_>) -> Result<Self::Matrix>;

    /// Takes a norm weight, shape `[len]`.
    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<Self::Vector>;
}

/// Weights of one decoder layer. `M` is `[out_features, in_features]`.
pub struct LayerWeights<M, V> {
    pub input_norm: V,
    pub q_proj: M,
    /// `None` where another layer's keys and values are used.
    pub k_proj: Option<M>,
    /// `None` there, and where V is K.
    pub v_proj: Option<M>,
    pub o_proj: M,
    pub q_norm: V,
    /// As `k_proj`.
    pub k_norm: Option<V>,
    pub post_attention_norm: V,
    pub pre_feedforward_norm: V,
    pub gate_proj: M,
    pub up_proj: M,
    pub down_proj: M,
    pub post_feedforward_norm: V,
    /// With per-layer embeddings.
    pub per_layer: Option<PerLayerWeights<M, V>>,
    /// 1.0 where the architecture has none.
    pub scalar: f32,
}

/// How a layer takes in its vector.
pub struct PerLayerWeights<M, V> {
    /// `[size, hidden]`
    pub gate: M,
    /// `[hidden, size]`
    pub projection: M,
    pub norm: V,
}

/// What makes all layers' vectors.
pub struct PerLayerTables<M, V> {
    /// `[vocab, layers · size]`, by token.
    pub table: M,
    /// `[layers · size, hidden]`, of the embedding.
    pub projection: M,
    /// `[size]`, of what is projected.
    pub norm: V,
}

/// All weights of a model, in a backend's own form.
pub struct ModelWeights<M, V> {
    pub embed_tokens: M,
    pub per_layer: Option<PerLayerTables<M, V>>,
    pub layers: Vec<LayerWeights<M, V>>,
    pub norm: V,
    /// `None` where it is tied to `embed_tokens`.
    pub lm_head: Option<M>,
}

impl<M, V> ModelWeights<M, V> {
    /// Reads every tensor of the model once, in the order of the forward pass, into `store`.
    /// `progress` is told the bytes of the checkpoint consumed since it was last called.
    pub async fn load<S>(
        source: &dyn TensorSource,
        quantize: Quantize,
        store: &mut S,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self>
    where
        S: WeightStore<Matrix = M, Vector = V>,
    {
        let config = source.config().clone();
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let quantize = resolve(source, quantize);
        let mut load = Loader { source, config: &config, quantize, store, progress };
        let embed_tokens = load.matrix("embed_tokens.weight", vocab, hidden).await?;
        let per_layer = match config.per_layer_input {
            Some(input) => Some(load.per_layer_tables(input).await?),
            None => None,
        };
        let mut layers = Vec::with_capacity(config.layers.len());
        for (index, layer) in config.layers.iter().enumerate() {
            layers.push(load.layer(index, layer).await?);
        }
        let norm = load.norm("norm.weight", hidden).await?;
        let lm_head = match config.tie_word_embeddings {
            true => None,
            false => Some(load.matrix("lm_head.weight", vocab, hidden).await?),
        };
        Ok(ModelWeights { embed_tokens, per_layer, layers, norm, lm_head })
    }
}

/// What full-precision matrices of a checkpoint become: `quantize` itself, but for
/// [`Quantize::Auto`].
pub fn resolve(source: &dyn TensorSource, quantize: Quantize) -> Quantize {
    let is_quantized = |name: &String| {
        let info = source.info(name);
        info.is_some_and(|info| info.shape.len() == 2 && !info.dtype.is_float())
    };
    match quantize {
        Quantize::Auto if tensor_names(source.config()).iter().any(is_quantized) => Quantize::None,
        Quantize::Auto => Quantize::Int4,
        quantize => quantize,
    }
}

/// Names of the tensors that a model has, in the order of the forward pass.
pub(crate) fn tensor_names(config: &ModelConfig) -> Vec<String> {
    let mut names = vec!["embed_tokens.weight".to_owned()];
    if config.per_layer_input.is_some() {
        names.extend([PER_LAYER_TABLE, PER_LAYER_PROJECTION, PER_LAYER_NORM].map(String::from));
    }
    for (index, layer) in config.layers.iter().enumerate() {
        let tensors = LAYER_TENSORS.iter().filter(|(name, _)| has_tensor(config, layer, name));
        names.extend(tensors.map(|(name, _)| format!("layers.{index}.{name}")));
    }
    names.push("norm.weight".into());
    if !config.tie_word_embeddings {
        names.push("lm_head.weight".into());
    }
    names
}

/// Whether a layer needs the tensor; of those that it does without, files may have some.
fn has_tensor(config: &ModelConfig, layer: &LayerConfig, name: &str) -> bool {
    match name {
        "layer_scalar" => config.layer_scalar,
        "self_attn.k_proj.weight" | "self_attn.k_norm.weight" => layer.kv_from.is_none(),
        "self_attn.v_proj.weight" => layer.kv_from.is_none() && !layer.k_eq_v,
        name if name.contains("per_layer") => config.per_layer_input.is_some(),
        _ => true,
    }
}

/// Bytes of the checkpoint that [`ModelWeights::load`] will read: the progress bar's length.
pub fn load_bytes(source: &dyn TensorSource) -> u64 {
    let names = tensor_names(source.config());
    names.iter().filter_map(|name| source.info(name)).map(|info| info.bytes() as u64).sum()
}

/// A tensor that a model needs, and what it becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTensor {
    pub name: String,
    pub info: TensorInfo,
    /// The packed form of a matrix; `None` for vectors, which stay as they are.
    pub format: Option<PackFormat>,
}

/// The tensors of a checkpoint that its model has, in the order of the forward pass, with the
/// formats that [`ModelWeights::load`] gives them.
///
/// Errors: a tensor that the model needs is missing.
pub fn plan(source: &dyn TensorSource, quantize: Quantize) -> Result<Vec<PlannedTensor>> {
    let quantize = resolve(source, quantize);
    let mut planned = Vec::new();
    for name in tensor_names(source.config()) {
        let Some(info) = source.info(&name) else { return Err(source.missing(&name)) };
        let format =
            (info.shape.len() == 2).then(|| pack_format(info.dtype, quantize, Role::of(&name)));
        planned.push(PlannedTensor { name, info, format });
    }
    Ok(planned)
}

/// Rows of a matrix of `rows` rows that one token reads: all of a layer's, one of an embedding that
/// is no head.
pub fn rows_read(config: &ModelConfig, name: &str, rows: usize) -> usize {
    match name {
        PER_LAYER_TABLE => rows.min(1),
        "embed_tokens.weight" if !config.tie_word_embeddings => rows.min(1),
        _ => rows,
    }
}

/// A tensor's name without the layer's number.
pub fn tensor_kind(name: &str) -> &str {
    match name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
        Some((_, rest)) => rest,
        None => name,
    }
}

/// What a matrix is for; embeddings get more bits.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    Linear,
    Embedding,
}

impl Role {
    fn of(name: &str) -> Role {
        match name {
            // What every layer's vector is made of counts as an embedding; llama.cpp leaves the
            // projection unquantized.
            "embed_tokens.weight" | PER_LAYER_TABLE | PER_LAYER_PROJECTION | "lm_head.weight" => {
                Role::Embedding
            }
            _ => Role::Linear,
        }
    }
}

/// The device format for a tensor stored as `dtype`; `quantize` is resolved.
fn pack_format(dtype: Dtype, quantize: Quantize, role: Role) -> PackFormat {
    match (dtype, quantize) {
        (Dtype::F32, Quantize::None) => PackFormat::F32,
        (Dtype::F16, Quantize::None) => PackFormat::F16,
        (Dtype::BF16, Quantize::None) => PackFormat::BF16,
        (Dtype::F32 | Dtype::F16 | Dtype::BF16, Quantize::Int8) => PackFormat::INT8,
        (Dtype::F32 | Dtype::F16 | Dtype::BF16, Quantize::Int4 | Quantize::Auto) => match role {
            Role::Linear => PackFormat::INT4,
            Role::Embedding => PackFormat::INT8,
        },
        (dtype, _) => quant::native_format(dtype),
    }
}

struct Loader<'a, S> {
    source: &'a dyn TensorSource,
    config: &'a ModelConfig,
    quantize: Quantize,
    store: &'a mut S,
    progress: &'a mut dyn FnMut(u64),
}

impl<S: WeightStore> Loader<'_, S> {
    async fn layer(
        &mut self,
        index: usize,
        layer: &LayerConfig,
    ) -> Result<LayerWeights<S::Matrix, S::Vector>> {
        let (hidden, ffn, dim) = (self.config.hidden_size, layer.intermediate_size, layer.head_dim);
        let (q, kv) = (layer.n_heads * dim, layer.n_kv_heads * dim);
        let name = |tensor: &str| format!("layers.{index}.{tensor}");
        Ok(LayerWeights {
            input_norm: self.norm(&name("input_layernorm.weight"), hidden).await?,
            q_proj: self.matrix(&name("self_attn.q_proj.weight"), q, hidden).await?,
            k_proj: match layer.kv_from {
                Some(_) => None,
                None => Some(self.matrix(&name("self_attn.k_proj.weight"), kv, hidden).await?),
            },
            v_proj: match layer.k_eq_v || layer.kv_from.is_some() {
                true => None,
                false => Some(self.matrix(&name("self_attn.v_proj.weight"), kv, hidden).await?),
            },
            o_proj: self.matrix(&name("self_attn.o_proj.weight"), hidden, q).await?,
            q_norm: self.norm(&name("self_attn.q_norm.weight"), dim).await?,
            k_norm: match layer.kv_from {
                Some(_) => None,
                None => Some(self.norm(&name("self_attn.k_norm.weight"), dim).await?),
            },
            post_attention_norm: self
                .norm(&name("post_attention_layernorm.weight"), hidden)
                .await?,
            pre_feedforward_norm: self
                .norm(&name("pre_feedforward_layernorm.weight"), hidden)
                .await?,
            gate_proj: self.matrix(&name("mlp.gate_proj.weight"), ffn, hidden).await?,
            up_proj: self.matrix(&name("mlp.up_proj.weight"), ffn, hidden).await?,
            down_proj: self.matrix(&name("mlp.down_proj.weight"), hidden, ffn).await?,
            post_feedforward_norm: self
                .norm(&name("post_feedforward_layernorm.weight"), hidden)
                .await?,
            per_layer: match self.config.per_layer_input {
                Some(input) => Some(PerLayerWeights {
                    gate: self
                        .matrix(&name("per_layer_input_gate.weight"), input.size, hidden)
                        .await?,
                    projection: self
                        .matrix(&name("per_layer_projection.weight"), hidden, input.size)
                        .await?,
                    norm: self.norm(&name("post_per_layer_input_norm.weight"), hidden).await?,
                }),
                None => None,
            },
            scalar: match self.config.layer_scalar {
                true => self.values(&name("layer_scalar"), 1).await?[0],
                false => 1.0,
            },
        })
    }

    async fn per_layer_tables(
        &mut self,
        input: PerLayerInput,
    ) -> Result<PerLayerTables<S::Matrix, S::Vector>> {
        let (columns, hidden) = (self.config.per_layer_columns(), self.config.hidden_size);
        Ok(PerLayerTables {
            table: self.matrix(PER_LAYER_TABLE, input.vocab_size, columns).await?,
            projection: self.matrix(PER_LAYER_PROJECTION, columns, hidden).await?,
            norm: self.norm(PER_LAYER_NORM, input.size).await?,
        })
    }

    async fn matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<S::Matrix> {
        let dtype = self.expect(name, &[rows, cols])?;
        let format = pack_format(dtype, self.quantize, Role::of(name));
        let reader =
            MatrixReader::new(self.source, name, dtype, (rows, cols), format, self.progress);
        self.store.matrix(reader).await
    }

    async fn norm(&mut self, name: &str, len: usize) -> Result<S::Vector> {
        let mut values = self.values(name, len).await?;
        values.iter_mut().for_each(|value| *value += self.config.norm_weight_offset);
        self.store.vector(name, values)
    }

    async fn values(&mut self, name: &str, len: usize) -> Result<Vec<f32>> {
        let dtype = self.expect(name, &[len])?;
        let bytes = self.source.read(name, 0..1).await?;
        (self.progress)(bytes.len() as u64);
        quant::dequantize(dtype, &bytes).map_err(|reason| Error::tensor(name, reason))
    }

    /// The tensor's dtype, if it exists and has this shape.
    fn expect(&self, name: &str, shape: &[usize]) -> Result<Dtype> {
        let info = self.source.info(name).ok_or_else(|| self.source.missing(name))?;
        // A scalar may be stored without dimensions.
        if info.shape != shape && !(shape == [1] && info.shape.is_empty()) {
            return Err(Error::tensor(
                name,
                format!("has shape {:?}, the config wants {shape:?}", info.shape),
            ));
        }
        Ok(info.dtype)
    }
}

/// A matrix of the checkpoint, read and packed a slice of rows at a time.
pub struct MatrixReader<'a> {
    pub name: &'a str,
    pub rows: usize,
    pub cols: usize,
    pub format: PackFormat,
    source: &'a dyn TensorSource,
    dtype: Dtype,
    next_row: usize,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> MatrixReader<'a> {
    /// Reads the matrix `name` of `(rows, cols)` elements stored as `dtype`.
    pub(crate) fn new(
        source: &'a dyn TensorSource,
        name: &'a str,
        dtype: Dtype,
        (rows, cols): (usize, usize),
        format: PackFormat,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        MatrixReader { name, rows, cols, format, source, dtype, next_row: 0, progress }
    }

    /// How the checkpoint stores the matrix.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The next slice of at most `max_rows` rows, with the row it starts at; `None` after the last.
    pub async fn next(&mut self, max_rows: usize) -> Result<Option<(usize, PackedRows)>> {
        let Some((first, bytes)) = self.next_stored(max_rows).await? else { return Ok(None) };
        Ok(Some((first, self.pack(first, &bytes)?)))
    }

    /// Packs the slice that was read last, which begins at row `first`.
    pub(crate) fn pack(&self, first: usize, bytes: &[u8]) -> Result<PackedRows> {
        quant::pack_rows(self.dtype, bytes, self.next_row - first, self.cols, self.format).map_err(
            |reason| Error::tensor(self.name, format!("rows {first}..{}: {reason}", self.next_row)),
        )
    }

    /// As [`MatrixReader::next`], the bytes as the checkpoint has them and unchecked.
    pub async fn next_stored(&mut self, max_rows: usize) -> Result<Option<(usize, Cow<'a, [u8]>)>> {
        if self.next_row == self.rows {
            return Ok(None);
        }
        let row_bytes =
            self.dtype.bytes_of(self.cols).map_err(|reason| Error::tensor(self.name, reason))?;
        let rows = slice_rows(row_bytes).min(max_rows).min(self.rows - self.next_row);
        let range: Range<usize> = self.next_row..self.next_row + rows;
        let bytes = self.source.read(self.name, range.clone()).await?;
        (self.progress)(bytes.len() as u64);
        self.next_row = range.end;
        Ok(Some((range.start, bytes)))
    }
}

/// Rows of a slice: whole runs of the rows that a backend may interleave.
fn slice_rows(row_bytes: usize) -> usize {
    (SLICE_BYTES / row_bytes.max(1) / SLICE_ROWS * SLICE_ROWS).max(SLICE_ROWS)
}

/// Bytes of the largest slice in which a matrix is read; `None` if its rows are so long that it
/// exceeds what slices should be.
pub(crate) fn slice_bytes(dtype: Dtype, rows: usize, cols: usize) -> Option<u64> {
    let row_bytes = dtype.bytes_of(cols).ok()?;
    let bytes = row_bytes.checked_mul(slice_rows(row_bytes).min(rows))?;
    (bytes <= SLICE_BYTES).then_some(bytes as u64)
}
