//! A mixture of experts with quantized weights, whose rows are padded to whole groups.

use crate::common::{all_logits, assert_close, cpu, mlx, random_model::RandomModel};
use gemma4_wgpu::{
    model::{kv::CacheType, weights::LoadOptions},
    quant::Quantize,
};

#[test]
fn quantized_experts_give_the_logits_of_the_cpu() {
    let tokens: Vec<u32> = (0..21).map(|i| (i * i + 3 * i) % 83).collect();
    for quantize in [Quantize::Int4, Quantize::Int8] {
        let options = LoadOptions {
            quantize,
            context_length: 64,
            max_sequences: 1,
            cache_type: CacheType::F32,
        };
        let model = RandomModel::small_experts();
        let [expected, found] = [cpu(&model, &options), mlx(&model, &options)].map(|backend| {
            let mut backend = backend.unwrap();
            let sequence = backend.open_sequence().unwrap();
            all_logits(&mut *backend, sequence, &tokens, &[1, 5, 15])
        });
        assert_close(&found, &expected, 2e-3, &quantize.to_string());
    }
}
