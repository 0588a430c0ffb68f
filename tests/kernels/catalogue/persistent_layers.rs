use gemma4_wgpu::{
    gpu::kernels::{Kernel, Linear, PerLayerProducts, PersistentLayer, SplitAttention},
    model::kv::CacheType,
    quant::PackFormat,
};

use super::layer_31b;

/// Persistent kernels with and without a per-layer input, before a layer and at the end.
pub(super) fn all() -> Vec<Box<dyn Kernel>> {
    let persistent_linear = |rows, cols| Linear {
        format: PackFormat::INT4,
        rows,
        cols,
        y_stride: rows,
        y_offset: 0,
        softcap: None,
        over_outputs: false,
        interleaved16: true,
    };
    let layer = layer_31b(true);
    let persistent = PersistentLayer {
        split: SplitAttention {
            layer,
            scale: 1.0,
            cache_type: CacheType::F16,
            capacity: 1536,
            rows: 1,
        },
        o: persistent_linear(5376, 16384),
        gate_up: persistent_linear(43008, 5376),
        down: persistent_linear(5376, 21504),
        qkv: vec![persistent_linear(16384, 5376)],
        per_layer: None,
        eps: 1e-6,
        set_words: PersistentLayer::set_words(5376, 16384, 21504, 256),
        workgroups: 256,
    };
    let per_layer = PerLayerProducts {
        gate: persistent_linear(256, 5376),
        projection: persistent_linear(5376, 256),
    };
    let mut all: Vec<Box<dyn Kernel>> = Vec::new();
    for format in PackFormat::ALL.into_iter().filter(|format| Linear::supports_q8(*format)) {
        let apart = [0, 8192, 12288].map(|y_offset| Linear {
            format,
            y_offset,
            ..persistent_linear(4096, 5376)
        });
        let down = Linear { format, ..persistent.down };
        if format != PackFormat::Iq4 {
            all.push(Box::new(PersistentLayer { down, qkv: apart.to_vec(), ..persistent.clone() }));
        }
    }
    for per_layer in [None, Some(per_layer)] {
        let persistent = PersistentLayer { per_layer, ..persistent.clone() };
        all.push(Box::new(PersistentLayer { qkv: Vec::new(), ..persistent.clone() }));
        all.push(Box::new(persistent));
    }
    all
}
