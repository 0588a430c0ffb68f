use crate::cpu::weight_rows::WeightRows;

/// Row `tokens[r]` of `table` (`[vocab, hidden]`) times `scale`, into `out` `[tokens, hidden]`.
pub fn embed(table: &impl WeightRows, tokens: &[u32], scale: f32, out: &mut [f32]) {
    let hidden = table.in_features();
    assert_eq!(out.len(), tokens.len() * hidden);
    for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(hidden)) {
        table.dequantize_row(token as usize, out);
        out.iter_mut().for_each(|value| *value *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::{CpuMatrix, ops::testing::random},
        quant::{self, Dtype, PackFormat},
    };

    #[test]
    fn picks_and_scales_rows() {
        let (vocab, hidden) = (5, 3);
        let values = random(vocab * hidden, 1);
        let packed = quant::pack_rows(
            Dtype::F32,
            bytemuck::cast_slice(&values),
            vocab,
            hidden,
            PackFormat::F32,
        );
        let table = CpuMatrix::new(packed.unwrap());
        let mut out = vec![0.0; 3 * hidden];
        embed(&table, &[4, 0, 4], 1.5, &mut out);
        for (row, token) in [4, 0, 4].into_iter().enumerate() {
            for i in 0..hidden {
                assert_eq!(out[row * hidden + i], values[token * hidden + i] * 1.5);
            }
        }
    }
}
