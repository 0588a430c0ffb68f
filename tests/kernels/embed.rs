//! Rows of the embedding against their twin, in every number format.

use gemma4_wgpu::{
    cpu::ops,
    gpu::{
        kernels::{Embed, Linear, stride},
        tile,
    },
    quant::{self, Dtype, PackFormat},
};
use half::f16;

use crate::{combinations::on_devices, harness::*, weights::weights};

#[test]
fn embedding_in_parts() {
    let (vocab, hidden, scale) = (48, 50, 7.0711);
    // The last row takes its token from the device, where slot 1 chose token 9.
    let rows: Vec<[u32; 4]> = vec![[0, 0, 0, 0], [40, 1, 0, 0], [5, 2, 0, 0], [u32::MAX, 0, 1, 0]];
    let tokens = [0, 40, 5, 9];
    for (gpu, [format]) in on_devices([PackFormat::ALL.len()]) {
        let format = PackFormat::ALL[format];
        let matrix = weights(format, vocab, hidden, 5);
        let mut expected = vec![0.0; tokens.len() * hidden];
        ops::embed(&matrix, &tokens, scale, &mut expected);
        let packed = matrix.packed();
        let (data_words, scale_words) = (format.data_words(hidden), format.scale_words(hidden));
        let (rows, sampled) = (upload(gpu, &rows), upload(gpu, &[3u32, 9]));
        let x = zeros(gpu, tokens.len() * stride(hidden));
        // With interleaved16, parts consist of whole runs of rows.
        let ways: &[(bool, [(usize, usize); 2])] = match Linear::supports_q8(format) {
            true => &[(false, [(0, 6), (6, 42)]), (true, [(0, 16), (16, 32)])],
            false => &[(false, [(0, 6), (6, 42)])],
        };
        for &(interleaved16, parts) in ways {
            for (first_row, part_rows) in parts {
                let data =
                    &packed.data[first_row * data_words..(first_row + part_rows) * data_words];
                let scales =
                    &packed.scales[first_row * scale_words..(first_row + part_rows) * scale_words];
                let (data, scales) = match interleaved16 {
                    true => {
                        (tile(data, data_words, 4), tile(scales, scale_words, format.scale_unit()))
                    }
                    false => (data.to_vec(), scales.to_vec()),
                };
                let kernel = Embed {
                    format,
                    first_row,
                    rows: part_rows,
                    cols: hidden,
                    scale,
                    interleaved16,
                };
                let buffers = [
                    ("data", &upload(gpu, &data)),
                    ("scales", &upload(gpu, &scales)),
                    ("rows", &rows),
                    ("sampled", &sampled),
                    ("x", &x),
                ];
                run(gpu, &kernel, &buffers, tokens.len(), 0);
            }
            assert_close(
                "embed",
                gpu,
                &download_rows(gpu, &x, tokens.len(), hidden),
                &expected,
                1e-6,
            );
        }
    }
}

/// Each weight equals ggml's formula in f32, also where d and dmin are subnormal.
#[test]
fn q4_k_is_exact() {
    let (rows, cols) = (16, 512);
    let mut blocks: Vec<u8> =
        random(rows * cols / 256 * 144, 11).iter().map(|x| (x * 128.0) as i8 as u8).collect();
    for (index, block) in blocks.chunks_exact_mut(144).enumerate() {
        let [d, dmin] =
            [1.5, 1.0].map(|x: f32| f16::from_f32(x * 2f32.powi(-(8 + index as i32 % 16))));
        block[..2].copy_from_slice(&d.to_le_bytes());
        block[2..4].copy_from_slice(&dmin.to_le_bytes());
    }
    let expected = quant::dequantize(Dtype::Q4_K, &blocks).expect("finite weights");
    let packed =
        quant::pack_rows(Dtype::Q4_K, &blocks, rows, cols, PackFormat::Q4K).expect("whole blocks");
    let tokens: Vec<[u32; 4]> = (0..rows as u32).map(|token| [token, 0, 0, 0]).collect();
    for gpu in devices() {
        let kernel = Embed {
            format: packed.format,
            first_row: 0,
            rows,
            cols,
            scale: 1.0,
            interleaved16: false,
        };
        let x = zeros(gpu, rows * cols);
        let weights = [upload(gpu, &packed.data), upload(gpu, &packed.scales)];
        let buffers = [
            ("data", &weights[0]),
            ("scales", &weights[1]),
            ("rows", &upload(gpu, &tokens)),
            ("sampled", &upload(gpu, &[0u32])),
            ("x", &x),
        ];
        run(gpu, &kernel, &buffers, rows, 0);
        assert_eq!(download_rows(gpu, &x, rows, cols), expected, "{:?}", gpu.target());
    }
}
