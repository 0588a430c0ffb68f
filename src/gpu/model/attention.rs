//! Attention of one layer: rotary embedding, KV update, scores and values.

use crate::error::Result;
use crate::gpu::device::buffers::GpuBuffer;
use crate::gpu::kernels::{
    ActivationFormat, RawHeads, RopeKvUpdate, Sdpa, SdpaCombine, SdpaCoop, SdpaDecode,
    SplitAttention,
};
use crate::gpu::model::layers::{Decoder, GpuLayer, LayerCache};
use crate::gpu::model::recorder::{Activations, Recorder};
use crate::gpu::model::step::StepShape;
use crate::gpu::model::workspace::Workspace;
use crate::model::config::LayerConfig;

/// Bytes of the next matrix that are prefetched during the attention of one token.
const PREFETCH_BYTES: usize = 4 << 20;

/// Records layer `index`'s attention from `qkv`. The outputs have the format `wanted` if a kernel
/// can write it, else f32. For a persistent kernel it leaves partial outputs and softmax
/// statistics.
pub(super) fn attention<'a>(
    rec: &mut Recorder<'a>,
    decoder: &'a Decoder,
    index: usize,
    wanted: ActivationFormat,
    is_partial: bool,
) -> Result<Activations<'a>> {
    let config = &decoder.config.layers[index];
    let split = decoder.split_attention(index, rec.shape.room().unwrap_or(1));
    let cols = config.n_heads * config.head_dim;
    let out = rec.activations(rec.workspace.attention(cols), cols, ActivationFormat::F32);
    let sdpa = Sdpa {
        layer: config.clone(),
        scale: decoder.config.attention_scale,
        cache_type: decoder.cache_type,
        capacity: decoder.cache(index).capacity,
        q_tile: query_tile(rec.shape, config),
    };
    let target = rec.gpu.target();
    let is_tiled = rec.shape.is_one_prompt() && SdpaCoop::can_run(target, &sdpa);
    if is_tiled || !rec.shape.is_small() || !split.can_run(target) {
        rope(rec, decoder, index)?;
        return whole_attention(rec, decoder, index, sdpa, wanted, out);
    }
    // Several tokens of one sequence need each other's keys, so these must be in the cache first.
    // An earlier layer may already have made the keys.
    let is_raw = !rec.shape.needs_own_keys() || config.kv_from.is_some();
    if !is_raw {
        rope(rec, decoder, index)?;
    }
    attend_keys(rec, decoder, index, split.clone(), is_raw)?;
    let layer = &decoder.layers[index];
    if is_partial {
        rec.prefetch(&layer.o_proj, &layer.down_proj, PREFETCH_BYTES)?;
        return Ok(out);
    }
    combine(rec, split, wanted, out)
}

/// qkv → q and, where the layer has keys of its own, the caches.
fn rope(rec: &mut Recorder<'_>, decoder: &Decoder, index: usize) -> Result<()> {
    let (s, layer, cache) = (rec.workspace, &decoder.layers[index], decoder.cache(index));
    let kernel = RopeKvUpdate {
        layer: decoder.config.layers[index].clone(),
        v_norm: decoder.config.v_norm,
        eps: decoder.config.rms_norm_eps,
        cache_type: decoder.cache_type,
        capacity: cache.capacity,
    };
    let [qkv, k_cache, v_cache, rows] = qkv_and_cache(s, cache);
    let [norms, frequencies] = rotation(layer);
    rec.run(&kernel, &[qkv, norms, frequencies, rows, k_cache, v_cache])
}

/// Attention over parts of the keys; if `is_raw`, also the work of [`rope`].
fn attend_keys(
    rec: &mut Recorder<'_>,
    decoder: &Decoder,
    index: usize,
    split: SplitAttention,
    is_raw: bool,
) -> Result<()> {
    let (s, layer, cache) = (rec.workspace, &decoder.layers[index], decoder.cache(index));
    let raw = RawHeads { v_norm: decoder.config.v_norm, eps: decoder.config.rms_norm_eps };
    let kernel = SdpaDecode { split, raw: is_raw.then_some(raw) };
    let parts = [("partial_outputs", &s.partial_attention), ("softmax_stats", &s.attention_stats)];
    let mut buffers = [&qkv_and_cache(s, cache)[..], &parts].concat();
    if is_raw {
        buffers.extend(rotation(layer));
    }
    rec.run(&kernel, &buffers)
}

/// The buffers that all attention kernels read, by their names.
fn qkv_and_cache<'a>(
    s: &'a Workspace,
    cache: &'a LayerCache,
) -> [(&'static str, &'a GpuBuffer); 4] {
    [("qkv", &s.qkv), ("k_cache", &cache.k), ("v_cache", &cache.v), ("rows", &s.rows)]
}

/// Norms of q and k, and the rotary frequencies.
fn rotation(layer: &GpuLayer) -> [(&'static str, &GpuBuffer); 2] {
    [("head_norms", &layer.qk_norms), ("rope_frequencies", &layer.rope_frequencies)]
}

/// Partial outputs → outputs.
fn combine<'a>(
    rec: &mut Recorder<'a>,
    split: SplitAttention,
    wanted: ActivationFormat,
    mut out: Activations<'a>,
) -> Result<Activations<'a>> {
    let s = rec.workspace;
    if SdpaCombine::has_epilogue(&split.layer) {
        out.format = wanted;
    }
    let kernel = SdpaCombine { split, epilogue: out.format };
    let own = [
        ("partial_outputs", &s.partial_attention),
        ("softmax_stats", &s.attention_stats),
        ("rows", &s.rows),
    ];
    rec.run_with_epilogue(&kernel, &own, out.format, out.floats)?;
    Ok(out)
}

/// Attention of every token over all its keys.
fn whole_attention<'a>(
    rec: &mut Recorder<'a>,
    decoder: &Decoder,
    index: usize,
    sdpa: Sdpa,
    wanted: ActivationFormat,
    mut out: Activations<'a>,
) -> Result<Activations<'a>> {
    let (s, cache) = (rec.workspace, decoder.cache(index));
    let [qkv, k_cache, v_cache, rows] = qkv_and_cache(s, cache);
    if rec.shape.is_one_prompt() && SdpaCoop::can_run(rec.gpu.target(), &sdpa) {
        out.format = wanted;
        let kernel = SdpaCoop { sdpa, epilogue: out.format };
        let own = [qkv, k_cache, v_cache, rows, ("step", &s.step)];
        rec.run_with_epilogue(&kernel, &own, out.format, out.floats)?;
    } else {
        let others = [("out", out.floats), ("step", &s.step)];
        rec.run(&sdpa, &[qkv, k_cache, v_cache, rows, others[0], others[1]])?;
    }
    Ok(out)
}

/// Tokens that a workgroup computes together: several only if all are of one sequence.
fn query_tile(shape: StepShape, config: &LayerConfig) -> usize {
    if shape.is_one_prompt() { Sdpa::prefill_tile(config) } else { 1 }
}
