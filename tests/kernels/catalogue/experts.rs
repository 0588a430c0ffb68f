//! Kernels of 26B-A4B's experts.

use gemma4_wgpu::{
    gpu::kernels::{
        ActivationFormat, AddExpertsRmsNorm, ExpertInputs, ExpertProduct, ExpertsMatmul,
        ExpertsMatvec, Kernel, Linear, MatmulF32, Pairs, Route, SortExperts,
    },
    model::config::Experts,
    quant::PackFormat,
};

const EXPERTS: Experts = Experts { count: 128, top_k: 8, intermediate_size: 704 };
const HIDDEN: usize = 2816;

/// Kernels of every form of activations and of weights.
pub fn kernels(forms: &[ActivationFormat]) -> Vec<Box<dyn Kernel>> {
    let mut all: Vec<Box<dyn Kernel>> = vec![
        Box::new(ExpertInputs { n: HIDDEN, eps: 1e-6 }),
        Box::new(Route(EXPERTS)),
        Box::new(SortExperts { experts: EXPERTS, tile: ExpertsMatvec::TILE }),
        Box::new(SortExperts { experts: EXPERTS, tile: ExpertsMatmul::TILE }),
    ];
    for &epilogue in forms {
        let (n, eps, parts, part_stride) = (HIDDEN, 1e-6, 3, 512 * HIDDEN);
        let top_k = EXPERTS.top_k;
        all.push(Box::new(AddExpertsRmsNorm { n, eps, parts, part_stride, top_k, epilogue }));
    }
    for format in PackFormat::ALL {
        for gated in [false, true] {
            let product = ExpertProduct {
                experts: EXPERTS,
                format,
                bound: EXPERTS.count / 2,
                first: EXPERTS.count / 2,
                features: if gated { EXPERTS.intermediate_size } else { HIDDEN },
                cols: if gated { HIDDEN } else { EXPERTS.intermediate_size },
                gated,
                share: if gated { EXPERTS.top_k } else { 1 },
                interleaved16: gated && format == PackFormat::INT4,
            };
            for pairs in [Pairs::Single, Pairs::Tiles(ExpertsMatvec::TILE)] {
                all.push(Box::new(ExpertsMatvec { product, pairs }));
            }
            all.push(Box::new(ExpertsMatmul(product)));
        }
        all.push(Box::new(MatmulF32(Linear {
            format,
            rows: EXPERTS.count,
            cols: HIDDEN,
            y_stride: EXPERTS.count,
            y_offset: 0,
            softcap: None,
            over_outputs: false,
            interleaved16: false,
        })));
    }
    all
}
