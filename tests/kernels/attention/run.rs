//! Runs one layer's attention on a device, in every way in which kernels compute it.

use gemma4_wgpu::{
    gpu::{
        Gpu, GpuBuffer, StepSize,
        kernels::{
            ActivationFormat, Kernel, RawHeads, RopeKvUpdate, Sdpa, SdpaCombine, SdpaCoop,
            SdpaDecode, SplitAttention, stride,
        },
    },
    model::{config::LayerConfig, kv::CacheType},
};

use crate::{emulated::Emulated, epilogue::check_forms, harness::*};

pub const EPS: f32 = 1e-6;
pub const SLOTS: usize = 2;

/// A layer, and the chunks of positions for it.
#[derive(Debug, Clone)]
pub struct Case {
    pub layer: LayerConfig,
    pub cache_type: CacheType,
    pub v_norm: bool,
    /// The factor on q · k. Large values move softmax's reference.
    pub scale: f32,
    pub capacity: usize,
    /// Position of the first token.
    pub start: usize,
    pub chunks: Vec<usize>,
    pub seed: u64,
}

/// The device's side: one layer's cache, of which the test uses slot 1.
pub struct Attention<'a> {
    pub gpu: &'a Gpu,
    pub case: &'a Case,
    /// Whether to test emulated matrices of 8 × 8 too, which the device does not have.
    pub emulated: bool,
    pub k_cache: GpuBuffer,
    pub v_cache: GpuBuffer,
}

impl Attention<'_> {
    /// Feeds qkv rows at `position` and returns attention's output with each query tile.
    pub fn feed(
        &self,
        qkv: &[f32],
        norms: &[f32],
        position: usize,
        tiles: &[usize],
    ) -> Vec<Vec<f32>> {
        let (gpu, case) = (self.gpu, self.case);
        let width = RopeKvUpdate::qkv_stride(&case.layer);
        let count = qkv.len() / width;
        let rows: Vec<[u32; 4]> =
            (0..count).map(|row| [0, (position + row) as u32, 1, 0]).collect();
        let split = self.split_attention(count);
        let raw = (split.can_run(gpu.target()) && count <= 3)
            .then(|| self.raw(&split, qkv, norms, position));
        let (qkv, rows) = (upload(gpu, qkv), upload(gpu, &rows));
        let turns = upload(gpu, &RopeKvUpdate::rope_frequencies(&case.layer));
        let rope = RopeKvUpdate {
            layer: case.layer.clone(),
            v_norm: case.v_norm,
            eps: EPS,
            cache_type: case.cache_type,
            capacity: case.capacity,
        };
        let buffers = [
            ("qkv", &qkv),
            ("head_norms", &upload(gpu, norms)),
            ("rope_frequencies", &turns),
            ("rows", &rows),
            ("k_cache", &self.k_cache),
            ("v_cache", &self.v_cache),
        ];
        run(gpu, &rope, &buffers, count, 0);
        let step = gpu.uniform("step", [count as u32, 0, 0, 0]).expect("a uniform");
        let heads = case.layer.n_heads * case.layer.head_dim;
        let attend = |&q_tile: &usize| {
            let sdpa = Sdpa {
                layer: case.layer.clone(),
                scale: case.scale,
                cache_type: case.cache_type,
                capacity: case.capacity,
                q_tile,
            };
            let run = |kernel: &dyn Kernel| {
                let out = zeros(gpu, count * stride(heads));
                run(
                    gpu,
                    kernel,
                    &[
                        ("qkv", &qkv),
                        ("k_cache", &self.k_cache),
                        ("v_cache", &self.v_cache),
                        ("rows", &rows),
                        ("out", &out),
                        ("step", &step),
                    ],
                    count,
                    0,
                );
                download_rows(gpu, &out, count, heads)
            };
            let out = run(&sdpa);
            let target = match self.emulated {
                true => Emulated::<SdpaCoop>::target(gpu.target()),
                false => *gpu.target(),
            };
            if SdpaCoop::can_run(&target, &sdpa) {
                let own = || {
                    let step = gpu.uniform("step", [count as u32, 0, 0, 0]).expect("a uniform");
                    let read =
                        [&qkv, &self.k_cache, &self.v_cache, &rows].map(|buffer| copy(gpu, buffer));
                    let names = ["qkv", "k_cache", "v_cache", "rows", "step"];
                    names.into_iter().zip(read.into_iter().chain([step])).collect()
                };
                let kernel = |epilogue| {
                    let kernel = SdpaCoop { sdpa: sdpa.clone(), epilogue };
                    (epilogue != ActivationFormat::Q8Block32).then(|| match self.emulated {
                        true => Box::new(Emulated(kernel)) as Box<dyn Kernel>,
                        false => Box::new(kernel),
                    })
                };
                let step = StepSize { rows: count, outputs: 0, keys: 0 };
                // q and the softmax weights are f16.
                check_forms(
                    gpu,
                    &format!("sdpa_coop, {case:?}"),
                    &kernel,
                    &own,
                    step,
                    (&out, heads),
                    8e-3 * case.scale.max(0.7),
                );
            }
            out
        };
        let mut outs: Vec<Vec<f32>> = tiles.iter().map(attend).collect();
        if split.can_run(gpu.target()) {
            let buffers = [&qkv, &self.k_cache, &self.v_cache, &rows];
            let step = StepSize { rows: count, outputs: 0, keys: position + count };
            outs.push(self.split(&SdpaDecode { split, raw: None }, &buffers, &[], step));
        }
        if let Some((raw, k_cache, v_cache)) = raw {
            outs.push(raw);
            for (cache, from_raw) in [(&self.k_cache, k_cache), (&self.v_cache, v_cache)] {
                self.check_cached(cache, &from_raw, position..position + count);
            }
        }
        outs
    }

    fn split_attention(&self, rows: usize) -> SplitAttention {
        let case = self.case;
        let layer = case.layer.clone();
        SplitAttention {
            layer,
            scale: case.scale,
            cache_type: case.cache_type,
            capacity: case.capacity,
            rows,
        }
    }

    /// Attention of one token after another, computed from the projections of q, k and v.
    /// Each step also has a token of another sequence. Returns the output and the caches.
    fn raw(
        &self,
        split: &SplitAttention,
        qkv: &[f32],
        norms: &[f32],
        position: usize,
    ) -> (Vec<f32>, GpuBuffer, GpuBuffer) {
        let (gpu, case) = (self.gpu, self.case);
        let (k_cache, v_cache) = (copy(gpu, &self.k_cache), copy(gpu, &self.v_cache));
        let tables =
            [upload(gpu, norms), upload(gpu, &RopeKvUpdate::rope_frequencies(&case.layer))];
        let width = RopeKvUpdate::qkv_stride(&case.layer);
        let kernel = SdpaDecode {
            split: split.clone(),
            raw: Some(RawHeads { v_norm: case.v_norm, eps: EPS }),
        };
        let mut outs = Vec::new();
        for (position, own) in (position..).zip(qkv.chunks_exact(width)) {
            let other = random(width, position as u64);
            let both = upload(gpu, &[other, own.to_vec()].concat());
            let rows = upload(gpu, &[[0, position as u32, 0, 0], [0, position as u32, 1, 0]]);
            let step = StepSize { rows: 2, outputs: 0, keys: position + 1 };
            let out = self.split(
                &kernel,
                &[&both, &k_cache, &v_cache, &rows],
                &[&tables[0], &tables[1]],
                step,
            );
            outs.extend_from_slice(&out[out.len() / 2..]);
        }
        (outs, k_cache, v_cache)
    }

    /// Fails unless slot 1 has the same values in both caches at these positions.
    fn check_cached(
        &self,
        cache: &GpuBuffer,
        other: &GpuBuffer,
        positions: std::ops::Range<usize>,
    ) {
        let (gpu, case) = (self.gpu, self.case);
        let (n_kv, dim) = (case.layer.n_kv_heads, case.layer.head_dim);
        let count = SLOTS * n_kv * case.capacity * dim;
        let values = |buffer| match case.cache_type {
            CacheType::F32 => download::<f32>(gpu, buffer, count),
            CacheType::F16 => download::<half::f16>(gpu, buffer, count)
                .into_iter()
                .map(half::f16::to_f32)
                .collect::<Vec<_>>(),
        };
        let (expected, found) = (values(cache), values(other));
        for head in 0..n_kv {
            for position in positions.clone() {
                let place = ((n_kv + head) * case.capacity + position % case.capacity) * dim;
                let range = place..place + dim;
                assert_close("cache", gpu, &found[range.clone()], &expected[range], 1e-3);
            }
        }
    }

    /// Attention in parts, as decode runs it. `buffers` are qkv, the caches and the rows.
    fn split(
        &self,
        kernel: &SdpaDecode,
        buffers: &[&GpuBuffer; 4],
        tables: &[&GpuBuffer],
        step: StepSize,
    ) -> Vec<f32> {
        let (gpu, case, split) = (self.gpu, self.case, &kernel.split);
        let (count, rows) = (step.rows, buffers[3]);
        let heads = case.layer.n_heads * case.layer.head_dim;
        let sums = zeros(gpu, count * split.partial_outputs_per_row(gpu.target()));
        let norms = zeros(gpu, count * split.softmax_stats_per_row(gpu.target()));
        let out = zeros(gpu, count * stride(heads));
        let inputs = ["qkv", "k_cache", "v_cache", "rows"].into_iter().zip(*buffers);
        let tables = ["head_norms", "rope_frequencies"].into_iter().zip(tables.iter().copied());
        let parts = [("partial_outputs", &sums), ("softmax_stats", &norms)];
        let all: Vec<Named> = inputs.chain(parts).chain(tables).collect();
        run_step(gpu, kernel, &all, step);
        let combine = |epilogue| SdpaCombine { split: split.clone(), epilogue };
        let all = [parts[0], parts[1], ("rows", rows), ("out", &out)];
        run_step(gpu, &combine(ActivationFormat::F32), &all, step);
        let floats = download_rows(gpu, &out, count, heads);
        if SdpaCombine::has_epilogue(&case.layer) {
            // The kernel only reads these buffers.
            let own = || all[..3].iter().map(|(name, buffer)| (*name, copy(gpu, buffer))).collect();
            let kernel = |epilogue| Some(Box::new(combine(epilogue)) as Box<dyn Kernel>);
            check_forms(gpu, "sdpa_combine", &kernel, &own, step, (&floats, heads), 1e-6);
        }
        floats
    }
}
