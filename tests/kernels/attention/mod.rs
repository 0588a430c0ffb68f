//! Rotary embedding, KV update and attention against their twins.

use gemma4_wgpu::{
    cpu::{KvCache, ops},
    gpu::{
        Gpu,
        kernels::{RopeKvUpdate, Sdpa, stride},
    },
    model::{
        config::{AttentionKind, LayerConfig, Rope},
        kv::CacheType,
    },
};
use proptest::prelude::*;

mod run;

use self::run::{Attention, Case, EPS, SLOTS};
use crate::{
    combinations::{on_devices, on_devices_where, random_cases},
    harness::*,
    long::is_long,
};

fn layer(
    attention: AttentionKind,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    k_eq_v: bool,
) -> LayerConfig {
    let rotated_pairs = if k_eq_v { head_dim / 8 } else { head_dim / 2 };
    let rope = Rope { theta: 1e4, rotated_pairs, scale: 1.0 };
    LayerConfig {
        attention,
        n_heads,
        n_kv_heads,
        head_dim,
        rope,
        k_eq_v,
        intermediate_size: 1,
        kv_from: None,
        experts: None,
    }
}

/// Columns `from..from + len` of every row.
fn columns(x: &[f32], width: usize, from: usize, len: usize) -> Vec<f32> {
    x.chunks_exact(width).flat_map(|row| row[from..from + len].to_vec()).collect()
}

fn check(gpu: &Gpu, case: &Case) {
    check_all(gpu, case, false);
}

fn check_all(gpu: &Gpu, case: &Case, emulated: bool) {
    let layer = &case.layer;
    let (dim, width) = (layer.head_dim, RopeKvUpdate::qkv_stride(layer));
    let (q_cols, kv_cols) = (layer.n_heads * dim, layer.n_kv_heads * dim);
    let cache_words = SLOTS * layer.n_kv_heads * case.capacity * dim;
    let device = Attention {
        gpu,
        case,
        emulated,
        k_cache: zeros(gpu, cache_words),
        v_cache: zeros(gpu, cache_words),
    };
    let norms = random(2 * dim, case.seed + 1);
    let frequencies = layer.rope.inverse_frequencies(dim);
    let mut twin = KvCache::new(case.cache_type, case.capacity, layer.n_kv_heads, dim);
    let mut position = case.start;
    for (index, &count) in case.chunks.iter().enumerate() {
        let qkv = random(count * width, case.seed + 2 + index as u64);
        let mut q = columns(&qkv, width, 0, q_cols);
        ops::qk_norm_rope(&mut q, layer.n_heads, &norms[..dim], EPS, &frequencies, position);
        let k = columns(&qkv, width, RopeKvUpdate::k_offset(layer), kv_cols);
        let v = columns(&qkv, width, RopeKvUpdate::v_offset(layer), kv_cols);
        let update = ops::KvUpdate {
            k_norm: &norms[dim..],
            v_norm: case.v_norm,
            eps: EPS,
            inverse_frequencies: &frequencies,
        };
        ops::rope_kv_update(&k, &v, update, position, &mut twin);
        let window = match layer.attention {
            AttentionKind::Sliding { window } => Some(window),
            AttentionKind::Full => None,
        };
        let mut expected = vec![0.0; q.len()];
        let attention = ops::Attention { n_heads: layer.n_heads, scale: case.scale, window };
        ops::sdpa(&q, &twin, position, attention, &mut expected);
        // No key before the start was ever written, so both sides must agree on zeros.
        let tolerance = match case.cache_type {
            CacheType::F32 => 2e-4,
            CacheType::F16 => 3e-3 * case.scale.max(1.0),
        };
        // The emulated kernels process tiles.
        let tiles = [1, Sdpa::prefill_tile(layer)];
        let outs = device.feed(&qkv, &norms, position, if emulated { &tiles[1..] } else { &tiles });
        for (way, out) in outs.iter().enumerate() {
            assert_close(&format!("sdpa, way {way}, {case:?}"), gpu, out, &expected, tolerance);
        }
        position += count;
    }
}

/// Checks a layer that shares the keys and values of `case`'s layer.
/// It has only q and must not change the caches.
fn check_sharing(gpu: &Gpu, case: &Case) {
    let (own, dim) = (&case.layer, case.layer.head_dim);
    let sharing = LayerConfig { kv_from: Some(0), ..own.clone() };
    let (width, q_width, q_cols) =
        (RopeKvUpdate::qkv_stride(own), RopeKvUpdate::qkv_stride(&sharing), own.n_heads * dim);
    assert_eq!(q_width, stride(q_cols));
    let cache_words = SLOTS * own.n_kv_heads * case.capacity * dim;
    let [k_cache, v_cache] = [0, 1].map(|_| zeros(gpu, cache_words));
    let (norms, q_norms) = (random(2 * dim, case.seed + 1), random(2 * dim, case.seed + 9));
    let frequencies = own.rope.inverse_frequencies(dim);
    let mut twin = KvCache::new(case.cache_type, case.capacity, own.n_kv_heads, dim);
    let mut position = case.start;
    for (index, &count) in case.chunks.iter().enumerate() {
        let qkv = random(count * width, case.seed + 2 + index as u64);
        let device = Attention {
            gpu,
            case,
            k_cache: copy(gpu, &k_cache),
            v_cache: copy(gpu, &v_cache),
            emulated: false,
        };
        device.feed(&qkv, &norms, position, &[1]);
        let kv_cols = own.n_kv_heads * dim;
        let k = columns(&qkv, width, RopeKvUpdate::k_offset(own), kv_cols);
        let v = columns(&qkv, width, RopeKvUpdate::v_offset(own), kv_cols);
        let update = ops::KvUpdate {
            k_norm: &norms[dim..],
            v_norm: case.v_norm,
            eps: EPS,
            inverse_frequencies: &frequencies,
        };
        ops::rope_kv_update(&k, &v, update, position, &mut twin);

        let mut q = random(count * q_cols, case.seed + 50 + index as u64);
        let rows = upload_rows(gpu, &q, q_cols);
        ops::qk_norm_rope(&mut q, own.n_heads, &q_norms[..dim], EPS, &frequencies, position);
        let window = match own.attention {
            AttentionKind::Sliding { window } => Some(window),
            AttentionKind::Full => None,
        };
        let mut expected = vec![0.0; q.len()];
        let attention = ops::Attention { n_heads: own.n_heads, scale: case.scale, window };
        ops::sdpa(&q, &twin, position, attention, &mut expected);

        let before =
            [&device.k_cache, &device.v_cache].map(|cache| download::<u32>(gpu, cache, usize::MAX));
        let of_sharing = Case { layer: sharing.clone(), ..case.clone() };
        let device = Attention { gpu, case: &of_sharing, ..device };
        let rows: Vec<f32> = download(gpu, &rows, count * q_width);
        let tolerance = if case.cache_type == CacheType::F32 { 2e-4 } else { 3e-3 };
        for (way, out) in
            device.feed(&rows, &q_norms, position, &[1, Sdpa::prefill_tile(own)]).iter().enumerate()
        {
            assert_close(&format!("sharing, way {way}, {case:?}"), gpu, out, &expected, tolerance);
        }
        let after =
            [&device.k_cache, &device.v_cache].map(|cache| download::<u32>(gpu, cache, usize::MAX));
        assert!(before == after, "caches were written, {case:?}");
        position += count;
        // The caches that the next chunk uses.
        for (cache, from) in [(&k_cache, &device.k_cache), (&v_cache, &device.v_cache)] {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(from, 0, cache, 0, from.size());
            gpu.queue().submit([encoder.finish()]);
        }
    }
}

#[test]
fn layers_that_share_keys() {
    let shapes = [
        (layer(sliding(5), 4, 2, 10, false), 5 + 8, vec![8, 1, 3, 1]),
        (layer(AttentionKind::Full, 6, 2, 24, false), 64, vec![7, 1, 2]),
        (layer(AttentionKind::Full, 8, 1, 512, false), 64, vec![33, 1]),
    ];
    let cache_types = [CacheType::F16, CacheType::F32];
    for (gpu, [shape, cache_type]) in on_devices([shapes.len(), cache_types.len()]) {
        let (layer, capacity, chunks) = shapes[shape].clone();
        let cache_type = cache_types[cache_type];
        let case = Case {
            layer,
            cache_type,
            v_norm: true,
            scale: 0.7,
            capacity,
            start: 0,
            chunks,
            seed: 21,
        };
        check_sharing(gpu, &case);
    }
}

fn sliding(window: usize) -> AttentionKind {
    AttentionKind::Sliding { window }
}

#[test]
fn awkward_shapes() {
    let shapes = [
        // One head, an odd number of pairs.
        (layer(AttentionKind::Full, 1, 1, 6, false), 64, 0, vec![1, 1, 5]),
        // A ring that wraps in the middle of a chunk, and a window shorter than the chunk.
        (layer(sliding(5), 4, 2, 10, false), 5 + 8, 0, vec![8, 1, 8, 3, 8, 1, 1]),
        // Grouped queries, V is K, partial rotation.
        (layer(AttentionKind::Full, 6, 2, 24, true), 300, 0, vec![7, 1, 130, 1, 9]),
        // Few parts for many keys, so each part has several tiles.
        (layer(AttentionKind::Full, 64, 64, 8, false), 520, 500, vec![3, 1]),
        // The head sizes of the 31B model, and more keys than one tile.
        (layer(sliding(40), 2, 1, 256, false), 96, 0, vec![50, 1, 50, 2]),
        (layer(AttentionKind::Full, 2, 1, 512, true), 160, 0, vec![131, 1, 3]),
        (layer(AttentionKind::Full, 8, 1, 64, true), 160, 0, vec![70, 1, 1]),
    ];
    // For cooperative matrices: other groups of heads, and scores that move softmax's reference.
    let for_coop = [
        (layer(sliding(100), 3, 3, 256, false), 208, 0, vec![70, 90, 17]),
        (layer(AttentionKind::Full, 8, 1, 512, true), 176, 0, vec![75, 90]),
    ];
    let all = [&shapes[..], &for_coop].concat();
    let is_possible =
        |gpu: &Gpu, [shape, _]: [usize; 2]| shape < shapes.len() || gpu.variant().coop.is_some();
    for (gpu, [shape, with_f16]) in on_devices_where([all.len(), 2], is_possible) {
        let (layer, capacity, start, chunks) = all[shape].clone();
        let steep = if gpu.variant().coop.is_some() { 4.0 } else { 0.7 };
        let (cache_type, v_norm, scale) = match with_f16 {
            1 => (CacheType::F16, true, steep),
            _ => (CacheType::F32, false, 0.7),
        };
        check(gpu, &Case { layer, cache_type, v_norm, scale, capacity, start, chunks, seed: 11 });
    }
}

/// Prompt attention as on Macs, on other machines.
/// Rings wrap within a tile, and there are windows and groups of heads.
/// The scores move softmax's reference.
#[test]
fn emulated_matrices() {
    let with_f16: Vec<&Gpu> =
        devices().iter().filter(|gpu| gpu.variant().f16 && gpu.variant().coop.is_none()).collect();
    assert_eq!(with_f16.is_empty(), !devices()[0].facts().shader_f16);
    let shapes = [
        (layer(sliding(40), 2, 1, 256, false), 96, vec![50, 1, 50, 2]),
        (layer(sliding(100), 3, 3, 256, false), 208, vec![70, 90, 17]),
        (layer(AttentionKind::Full, 8, 1, 512, true), 176, vec![75, 90]),
    ];
    // Devices with and without runtime checks alternate. In long runs each shape runs on both.
    for (index, (layer, capacity, chunks)) in shapes.into_iter().enumerate() {
        let (cache_type, v_norm, scale, start) = (CacheType::F16, true, 4.0, 0);
        let case = Case { layer, cache_type, v_norm, scale, capacity, start, chunks, seed: 11 };
        for (which, gpu) in with_f16.iter().rev().take(2).enumerate() {
            if is_long() || which == index % 2 {
                check_all(gpu, &case, true);
            }
        }
    }
}

/// Angles stay exact far into the context, where f32 products would lose them.
#[test]
fn far_positions() {
    let layer = layer(sliding(4), 2, 2, 64, false);
    let (dim, position) = (layer.head_dim, 262_000usize);
    let frequencies = layer.rope.inverse_frequencies(dim);
    let turns = RopeKvUpdate::rope_frequencies(&layer);
    for (frequency, turn) in frequencies.iter().zip(turns) {
        let exact = (*frequency as f64 * position as f64).rem_euclid(std::f64::consts::TAU);
        let fixed =
            turn.wrapping_mul(position as u32) as f64 / 2f64.powi(32) * std::f64::consts::TAU;
        let error = (exact - fixed).abs();
        assert!(
            error.min(std::f64::consts::TAU - error) < 3e-4,
            "{frequency}: {exact} and {fixed}"
        );
    }
    // The device must agree with an f64 rotation there.
    // A single key attends only to itself, so the chunk has several tokens.
    for gpu in devices() {
        let case = Case {
            layer: layer.clone(),
            cache_type: CacheType::F32,
            v_norm: false,
            scale: 0.7,
            capacity: 8,
            start: position,
            chunks: vec![4],
            seed: 5,
        };
        check_far(gpu, &case, &frequencies);
    }
}

/// Like [`check`], with angles computed in f64.
fn check_far(gpu: &Gpu, case: &Case, frequencies: &[f32]) {
    let (layer, dim) = (&case.layer, case.layer.head_dim);
    let width = RopeKvUpdate::qkv_stride(layer);
    let count = case.chunks[0];
    let cache_words = SLOTS * layer.n_kv_heads * case.capacity * dim;
    let device = Attention {
        gpu,
        case,
        emulated: false,
        k_cache: zeros(gpu, cache_words),
        v_cache: zeros(gpu, cache_words),
    };
    let qkv = random(count * width, case.seed);
    device.feed(&qkv, &vec![1.0; 2 * dim], case.start, &[1]);
    let cached: Vec<f32> = download(gpu, &device.k_cache, cache_words);
    for row in 0..count {
        for head in 0..layer.n_kv_heads {
            let mut key = vec![0.0; dim];
            let at = row * width + RopeKvUpdate::k_offset(layer) + head * dim;
            ops::rms_norm(&qkv[at..at + dim], None, dim, EPS, &mut key);
            let expected: Vec<f32> = (0..dim)
                .map(|i| {
                    let pair = i % (dim / 2);
                    let angle = frequencies[pair] as f64 * (case.start + row) as f64;
                    let (a, b) = (key[pair] as f64, key[pair + dim / 2] as f64);
                    let turned = if i < dim / 2 {
                        a * angle.cos() - b * angle.sin()
                    } else {
                        b * angle.cos() + a * angle.sin()
                    };
                    turned as f32
                })
                .collect();
            let place = ((layer.n_kv_heads + head) * case.capacity
                + (case.start + row) % case.capacity)
                * dim;
            assert_close("far key", gpu, &cached[place..place + dim], &expected, 5e-4);
        }
    }
}

proptest! {
    #![proptest_config(random_cases(16))]

    #[test]
    fn any_shape(
        heads in (1usize..4, 1usize..4),
        half_dim in 1usize..40,
        window in prop::option::of(1usize..30),
        chunks in prop::collection::vec(1usize..20, 1..5),
        k_eq_v: bool,
        v_norm: bool,
        f16_cache: bool,
        seed: u32,
        device: prop::sample::Index,
    ) {
        let attention = window.map_or(AttentionKind::Full, sliding);
        let largest = chunks.iter().max().copied().unwrap_or(1);
        let capacity = window.map_or(chunks.iter().sum(), |window| window + largest);
        let case = Case {
            layer: layer(attention, heads.0 * heads.1, heads.1, 2 * half_dim, k_eq_v),
            cache_type: if f16_cache { CacheType::F16 } else { CacheType::F32 },
            v_norm,
            scale: 0.7,
            capacity,
            start: 0,
            chunks,
            seed: seed as u64,
        };
        check(device.get(devices()), &case);
    }
}
