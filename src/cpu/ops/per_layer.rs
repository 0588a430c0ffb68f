use crate::cpu::{ops::norm::norm_row, weight_rows::WeightRows};

/// All layers' vectors of each token, from the embedding's projections `x` `[tokens, layers ·
/// size]` in place. Each layer's vector is `(rms_norm(x · projection_scale) · norm + table[token] ·
/// sqrt(size)) / sqrt(2)`.
///
/// `norm`: `[size]`; `table`: `[vocab, layers · size]`.
pub fn per_layer_inputs(
    x: &mut [f32],
    table: &impl WeightRows,
    tokens: &[u32],
    norm: &[f32],
    projection_scale: f32,
    eps: f32,
) {
    let (columns, size) = (table.in_features(), norm.len());
    assert_eq!(x.len(), tokens.len() * columns);
    let table_scale = (size as f32).sqrt();
    let mut of_token = vec![0.0; columns];
    for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(columns)) {
        table.dequantize_row(token as usize, &mut of_token);
        for (x, of_token) in x.chunks_exact_mut(size).zip(of_token.chunks_exact(size)) {
            x.iter_mut().for_each(|value| *value *= projection_scale);
            norm_row(x, Some(norm), eps);
            for (x, of_token) in x.iter_mut().zip(of_token) {
                *x = (*x + of_token * table_scale) * std::f32::consts::FRAC_1_SQRT_2;
            }
        }
    }
}

/// One layer's columns `[tokens, size]` of all layers' vectors `[tokens, columns]`.
pub fn per_layer_columns(all: &[f32], columns: usize, size: usize, layer: usize) -> Vec<f32> {
    all.chunks_exact(columns).flat_map(|row| &row[layer * size..][..size]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cpu::CpuMatrix,
        cpu::ops::testing::{assert_close, random},
        quant::{self, Dtype, PackFormat},
    };

    #[test]
    fn follows_the_formula() {
        let (layers, size, vocab, scale, eps) = (3, 5, 4, 0.3f32, 0.01f32);
        let columns = layers * size;
        let values = random(vocab * columns, 1);
        let packed = quant::pack_rows(
            Dtype::F32,
            bytemuck::cast_slice(&values),
            vocab,
            columns,
            PackFormat::F32,
        );
        let table = CpuMatrix::new(packed.unwrap());
        let (projected, norm) = (random(2 * columns, 2), random(size, 3));
        let mut found = projected.clone();
        let tokens = [3, 1];
        per_layer_inputs(&mut found, &table, &tokens, &norm, scale, eps);
        for (row, token) in tokens.into_iter().enumerate() {
            for layer in 0..layers {
                let at =
                    |i: usize| projected[row * columns + layer * size + i] as f64 * scale as f64;
                let mean_square = (0..size).map(|i| at(i) * at(i)).sum::<f64>() / size as f64;
                let expected: Vec<f64> = (0..size)
                    .map(|i| {
                        let normed = at(i) / (mean_square + eps as f64).sqrt() * norm[i] as f64;
                        let looked_up = values[token as usize * columns + layer * size + i] as f64;
                        (normed + looked_up * (size as f64).sqrt()) / 2f64.sqrt()
                    })
                    .collect();
                let of_layer = per_layer_columns(&found, columns, size, layer);
                assert_close(&of_layer[row * size..][..size], &expected, 1e-6);
            }
        }
    }
}
