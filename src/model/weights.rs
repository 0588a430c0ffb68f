//! The weights of a model, and how they get from a source into a backend.

use crate::error::{Error, Result};
use crate::model::config::ModelConfig;
use crate::model::kv::CacheType;
use crate::model::matrix_reader::MatrixReader;
use crate::model::source::{TensorInfo, TensorSource};
use crate::model::tensors::{
    DOWN_PROJ, EMBED_TOKENS, EXPERTS_DOWN, EXPERTS_GATE_UP, GATE_PROJ, INPUT_NORM, K_NORM, K_PROJ,
    LAYER_SCALAR, LM_HEAD, ModelTensor, O_PROJ, OUTPUT_NORM, PER_EXPERT_SCALE, PER_LAYER_GATE,
    PER_LAYER_MODEL_PROJECTION, PER_LAYER_PROJECTION, PER_LAYER_PROJECTION_NORM, PER_LAYER_TABLE,
    POST_ATTENTION_NORM, POST_EXPERTS_NORM, POST_FEEDFORWARD_NORM, POST_MLP_NORM,
    POST_PER_LAYER_NORM, PRE_EXPERTS_NORM, PRE_FEEDFORWARD_NORM, Q_NORM, Q_PROJ, ROUTER,
    ROUTER_SCALE, Role, TensorSpec, UP_PROJ, V_PROJ, tensor_specs,
};
use crate::quant::{self, Dtype, PackFormat, Quantize};

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

impl LoadOptions {
    /// The same with a number of sequences with which sizes do not overflow. No device has memory
    /// for that number.
    pub(crate) fn countable(&self) -> Self {
        LoadOptions { max_sequences: self.max_sequences.min(1 << 30), ..*self }
    }
}

/// The backend's destination for weights.
#[allow(async_fn_in_trait)] // futures need not be Send: a browser has one thread
pub trait WeightStore {
    type Matrix;
    type Vector;

    /// Takes a matrix in slices. Call [`MatrixReader::next`] until it returns `None`.
    async fn matrix(&mut self, reader: MatrixReader<'_>) -> Result<Self::Matrix>;

    /// Takes a norm weight, shape `[len]`.
    fn vector(&mut self, name: &str, values: Vec<f32>) -> Result<Self::Vector>;
}

/// Weights of one decoder layer. `M` is `[out_features, in_features]`.
pub struct LayerWeights<M, V> {
    pub input_norm: V,
    pub q_proj: M,
    /// `None` where the layer uses another layer's keys and values.
    pub k_proj: Option<M>,
    /// `None` in the same case, and where V is K.
    pub v_proj: Option<M>,
    pub o_proj: M,
    pub q_norm: V,
    /// `None` in the same cases as `k_proj`.
    pub k_norm: Option<V>,
    pub post_attention_norm: V,
    pub pre_feedforward_norm: V,
    pub gate_proj: M,
    pub up_proj: M,
    pub down_proj: M,
    /// The experts beside gate, up and down.
    pub experts: Option<ExpertWeights<M, V>>,
    pub post_feedforward_norm: V,
    /// With per-layer embeddings.
    pub per_layer: Option<PerLayerWeights<M, V>>,
    /// 1.0 where the architecture has none.
    pub scalar: f32,
}

/// A layer's experts and their router.
pub struct ExpertWeights<M, V> {
    /// Applied to the dense MLP's output.
    pub post_mlp_norm: V,
    /// `[hidden]`, applied to the router's normed input.
    pub router_scale: V,
    /// `[experts, hidden]`
    pub router: M,
    /// `[experts]`, applied to the weights of the chosen experts.
    pub per_expert_scale: V,
    pub pre_norm: V,
    /// `[experts · 2 · intermediate, hidden]`, in each expert the rows of gate before those of up.
    pub gate_up: M,
    /// `[experts · hidden, intermediate]`
    pub down: M,
    pub post_norm: V,
}

/// How a layer uses its vector.
pub struct PerLayerWeights<M, V> {
    /// `[size, hidden]`
    pub gate: M,
    /// `[hidden, size]`
    pub projection: M,
    pub norm: V,
}

/// The weights that compute all layers' vectors.
pub struct PerLayerTables<M, V> {
    /// `[vocab, layers · size]`, with a row for each token.
    pub table: M,
    /// `[layers · size, hidden]`, applied to the embedding.
    pub projection: M,
    /// `[size]`, applied to the projected vectors.
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
    /// `progress` gets the bytes of the checkpoint consumed since its last call.
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
        let quantize = resolve(source, quantize);
        let mut load = Loader { source, config: &config, quantize, store, progress };
        let embed_tokens = load.matrix(&EMBED_TOKENS, None).await?;
        let per_layer = match config.per_layer_input {
            Some(_) => Some(load.per_layer_tables().await?),
            None => None,
        };
        let mut layers = Vec::with_capacity(config.layers.len());
        for index in 0..config.layers.len() {
            layers.push(load.layer(index).await?);
        }
        let norm = load.norm(&OUTPUT_NORM, None).await?;
        let lm_head = load.matrix_if(&LM_HEAD, None).await?;
        Ok(ModelWeights { embed_tokens, per_layer, layers, norm, lm_head })
    }
}

/// The target of a checkpoint's full-precision matrices. It is `quantize` itself, except for
/// [`Quantize::Auto`].
pub fn resolve(source: &dyn TensorSource, quantize: Quantize) -> Quantize {
    let is_quantized = |tensor: &ModelTensor| {
        let info = source.info(&tensor.name);
        info.is_some_and(|info| info.shape.len() == 2 && !info.dtype.is_float())
    };
    match quantize {
        Quantize::Auto if tensor_specs(source.config()).iter().any(is_quantized) => Quantize::None,
        Quantize::Auto => Quantize::Int4,
        quantize => quantize,
    }
}

/// Bytes of the checkpoint that [`ModelWeights::load`] will read, for the progress bar's length.
pub fn load_bytes(source: &dyn TensorSource) -> u64 {
    let tensors = tensor_specs(source.config());
    let stored = tensors.iter().filter_map(|tensor| source.info(&tensor.name));
    stored.map(|info| info.bytes() as u64).sum()
}

/// A tensor that a model needs, and its form after loading.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedTensor {
    pub name: String,
    pub role: Role,
    pub info: TensorInfo,
    /// The packed form of a matrix. `None` for vectors, which stay as they are.
    pub format: Option<PackFormat>,
}

/// The model's tensors in a checkpoint, with the formats that [`ModelWeights::load`] gives them.
/// They are in the order of the forward pass.
///
/// Errors: a tensor that the model needs is missing.
pub fn planned_tensors(
    source: &dyn TensorSource,
    quantize: Quantize,
) -> Result<Vec<PlannedTensor>> {
    let quantize = resolve(source, quantize);
    let planned = |ModelTensor { name, role, .. }: ModelTensor| {
        let Some(info) = source.info(&name) else { return Err(source.missing(&name)) };
        let format = (info.shape.len() == 2).then(|| pack_format(info.dtype, quantize, role));
        Ok(PlannedTensor { name, role, info, format })
    };
    tensor_specs(source.config()).into_iter().map(planned).collect()
}

/// The device format for a tensor stored as `dtype`. `quantize` is resolved.
fn pack_format(dtype: Dtype, quantize: Quantize, role: Role) -> PackFormat {
    let quantize = if role == Role::Router { Quantize::None } else { quantize };
    match (dtype, quantize) {
        (Dtype::F32, Quantize::None) => PackFormat::F32,
        (Dtype::F16, Quantize::None) => PackFormat::F16,
        (Dtype::BF16, Quantize::None) => PackFormat::BF16,
        (Dtype::F32 | Dtype::F16 | Dtype::BF16, Quantize::Int8) => PackFormat::INT8,
        (Dtype::F32 | Dtype::F16 | Dtype::BF16, Quantize::Int4 | Quantize::Auto) => {
            if role.is_embedding() { PackFormat::INT8 } else { PackFormat::INT4 }
        }
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
    async fn layer(&mut self, index: usize) -> Result<LayerWeights<S::Matrix, S::Vector>> {
        let layer = Some(index);
        Ok(LayerWeights {
            input_norm: self.norm(&INPUT_NORM, layer).await?,
            q_proj: self.matrix(&Q_PROJ, layer).await?,
            k_proj: self.matrix_if(&K_PROJ, layer).await?,
            v_proj: self.matrix_if(&V_PROJ, layer).await?,
            o_proj: self.matrix(&O_PROJ, layer).await?,
            q_norm: self.norm(&Q_NORM, layer).await?,
            k_norm: match self.has(&K_NORM, layer) {
                true => Some(self.norm(&K_NORM, layer).await?),
                false => None,
            },
            post_attention_norm: self.norm(&POST_ATTENTION_NORM, layer).await?,
            pre_feedforward_norm: self.norm(&PRE_FEEDFORWARD_NORM, layer).await?,
            gate_proj: self.matrix(&GATE_PROJ, layer).await?,
            up_proj: self.matrix(&UP_PROJ, layer).await?,
            down_proj: self.matrix(&DOWN_PROJ, layer).await?,
            experts: match self.has(&ROUTER, layer) {
                true => Some(self.experts(layer).await?),
                false => None,
            },
            post_feedforward_norm: self.norm(&POST_FEEDFORWARD_NORM, layer).await?,
            per_layer: match self.has(&PER_LAYER_GATE, layer) {
                true => Some(PerLayerWeights {
                    gate: self.matrix(&PER_LAYER_GATE, layer).await?,
                    projection: self.matrix(&PER_LAYER_PROJECTION, layer).await?,
                    norm: self.norm(&POST_PER_LAYER_NORM, layer).await?,
                }),
                false => None,
            },
            scalar: match self.has(&LAYER_SCALAR, layer) {
                true => self.values(&LAYER_SCALAR, layer).await?.1[0],
                false => 1.0,
            },
        })
    }

    async fn experts(
        &mut self,
        layer: Option<usize>,
    ) -> Result<ExpertWeights<S::Matrix, S::Vector>> {
        Ok(ExpertWeights {
            post_mlp_norm: self.norm(&POST_MLP_NORM, layer).await?,
            router_scale: self.router_scale(&ROUTER_SCALE, layer).await?,
            router: self.matrix(&ROUTER, layer).await?,
            per_expert_scale: self.router_scale(&PER_EXPERT_SCALE, layer).await?,
            pre_norm: self.norm(&PRE_EXPERTS_NORM, layer).await?,
            gate_up: self.matrix(&EXPERTS_GATE_UP, layer).await?,
            down: self.matrix(&EXPERTS_DOWN, layer).await?,
            post_norm: self.norm(&POST_EXPERTS_NORM, layer).await?,
        })
    }

    /// Errors also for a value that is not finite, because it would choose other experts.
    async fn router_scale(&mut self, spec: &TensorSpec, layer: Option<usize>) -> Result<S::Vector> {
        let (name, values) = self.values(spec, layer).await?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::tensor(name, format!("value {at} is {}", values[at])));
        }
        self.store.vector(&name, values)
    }

    async fn per_layer_tables(&mut self) -> Result<PerLayerTables<S::Matrix, S::Vector>> {
        Ok(PerLayerTables {
            table: self.matrix(&PER_LAYER_TABLE, None).await?,
            projection: self.matrix(&PER_LAYER_MODEL_PROJECTION, None).await?,
            norm: self.norm(&PER_LAYER_PROJECTION_NORM, None).await?,
        })
    }

    fn shape(&self, spec: &TensorSpec, layer: Option<usize>) -> Option<Vec<usize>> {
        spec.shape(self.config, layer.map(|index| &self.config.layers[index]))
    }

    /// Whether the model or the layer has the tensor.
    fn has(&self, spec: &TensorSpec, layer: Option<usize>) -> bool {
        self.shape(spec, layer).is_some()
    }

    async fn matrix_if(
        &mut self,
        spec: &TensorSpec,
        layer: Option<usize>,
    ) -> Result<Option<S::Matrix>> {
        match self.has(spec, layer) {
            true => self.matrix(spec, layer).await.map(Some),
            false => Ok(None),
        }
    }

    async fn matrix(&mut self, spec: &TensorSpec, layer: Option<usize>) -> Result<S::Matrix> {
        let (name, dtype, shape) = self.expect(spec, layer)?;
        let &[rows, cols] = shape.as_slice() else {
            return Err(Error::tensor(name, format!("is no matrix but of shape {shape:?}")));
        };
        let format = pack_format(dtype, self.quantize, spec.role);
        let experts = self.expert_count(layer);
        let mut reader =
            MatrixReader::new(self.source, &name, dtype, (rows, cols), format, self.progress);
        if spec.role == Role::ExpertMatrices {
            reader.block_rows = rows / experts;
        }
        reader.is_read_in_parts = matches!(spec.role, Role::ExpertMatrices | Role::PerLayerTable);
        self.store.matrix(reader).await
    }

    fn expert_count(&self, layer: Option<usize>) -> usize {
        let layer = layer.and_then(|index| self.config.layers.get(index));
        layer.and_then(|layer| layer.experts).map_or(1, |experts| experts.count)
    }

    async fn norm(&mut self, spec: &TensorSpec, layer: Option<usize>) -> Result<S::Vector> {
        let (name, mut values) = self.values(spec, layer).await?;
        values.iter_mut().for_each(|value| *value += self.config.norm_weight_offset);
        self.store.vector(&name, values)
    }

    /// A vector's name and elements.
    async fn values(
        &mut self,
        spec: &TensorSpec,
        layer: Option<usize>,
    ) -> Result<(String, Vec<f32>)> {
        let (name, dtype, _) = self.expect(spec, layer)?;
        let bytes = self.source.read(&name, 0..1).await?;
        (self.progress)(bytes.len() as u64);
        match quant::dequantize(dtype, &bytes) {
            Ok(values) => Ok((name, values)),
            Err(reason) => Err(Error::tensor(name, reason)),
        }
    }

    /// The tensor's name, dtype and shape. Errors if it is missing or has another shape than the
    /// config's.
    fn expect(
        &self,
        spec: &TensorSpec,
        layer: Option<usize>,
    ) -> Result<(String, Dtype, Vec<usize>)> {
        let name = layer.map_or_else(|| spec.name.to_owned(), |index| spec.in_layer(index));
        let found = self.source.info(&name).zip(self.shape(spec, layer));
        let Some((info, shape)) = found else { return Err(self.source.missing(&name)) };
        // A scalar may be stored without dimensions.
        if info.shape != shape && !(shape == [1] && info.shape.is_empty()) {
            return Err(Error::tensor(
                name,
                format!("has shape {:?}, the config wants {shape:?}", info.shape),
            ));
        }
        Ok((name, info.dtype, shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::synthetic::SyntheticSource;

    /// Records its input.
    struct Names(Vec<String>);

    impl WeightStore for Names {
        type Matrix = ();
        type Vector = ();

        async fn matrix(&mut self, reader: MatrixReader<'_>) -> Result<()> {
            self.0.push(reader.name.into());
            Ok(())
        }

        fn vector(&mut self, name: &str, _: Vec<f32>) -> Result<()> {
            self.0.push(name.into());
            Ok(())
        }
    }

    #[test]
    fn every_tensor_of_the_table_is_loaded_in_its_order() {
        for model in ["31b", "26b-a4b", "e2b", "270m"] {
            let source = SyntheticSource::new(ModelConfig::named(model).unwrap());
            let mut names = Names(Vec::new());
            let mut progress = |_| ();
            let load = ModelWeights::load(&source, Quantize::None, &mut names, &mut progress);
            pollster::block_on(load).unwrap();
            let specs = tensor_specs(source.config()).into_iter();
            // A scalar is not passed to the store as a vector.
            let stored = specs.filter(|tensor| tensor.role != Role::Scalar);
            assert_eq!(names.0, stored.map(|tensor| tensor.name).collect::<Vec<_>>());
        }
    }
}
