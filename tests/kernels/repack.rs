//! The device's conversion of stored rows against packing on the host, bit for bit.

use gemma4_wgpu::{
    gpu::{
        Gpu,
        kernels::{Repack, TILE_ROWS},
        tile,
    },
    quant::{Dtype, PackFormat, PackedRows, native_format, pack_rows},
};
use half::{bf16, f16};

use crate::{catalogue::STORED, combinations::on_devices_where, harness::*};

/// Columns that fill an even or odd number of blocks. Types without blocks have other numbers too.
fn columns(dtype: Dtype) -> [usize; 3] {
    match dtype.block_len() {
        1 => [32, 77, 160],
        32 => [32, 96, 256],
        block => [block, 2 * block, 3 * block],
    }
}

/// The place of a block's f16 values.
fn step_byte(dtype: Dtype) -> usize {
    if dtype == Dtype::Q6_K { 208 } else { 0 }
}

/// Random rows in their stored format.
fn stored(dtype: Dtype, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let values = random(rows * cols, seed);
    match dtype {
        Dtype::F32 => bytemuck::cast_slice(&values).to_vec(),
        Dtype::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Dtype::Packed(format) => {
            pack_rows(Dtype::F32, bytemuck::cast_slice(&values), rows, cols, format)
                .unwrap()
                .to_bytes()
        }
        _ => {
            let blocks = rows * cols / dtype.block_len();
            let mut bytes: Vec<u8> = random(blocks * dtype.block_bytes(), seed)
                .iter()
                .map(|x| (x * 128.0) as i8 as u8)
                .collect();
            let steps = random(2 * blocks, seed + 1);
            for (index, (block, steps)) in
                bytes.chunks_exact_mut(dtype.block_bytes()).zip(steps.chunks_exact(2)).enumerate()
            {
                // All sizes, including zeros of both signs, f16's smallest values and large ones.
                let large = if dtype == Dtype::Q6_K { 400.0 } else { 900.0 };
                let factor = [1.0, 0.0, -0.0, 1e-7, 1e-5, large][index % 6];
                for (bytes, step) in block[step_byte(dtype)..].chunks_exact_mut(2).zip(steps) {
                    bytes.copy_from_slice(&f16::from_f32(factor * step).to_le_bytes());
                }
            }
            bytes
        }
    }
}

/// Runs the kernel for rows in slices, each at its place. Returns data, scales and fault slots.
fn repack(
    gpu: &Gpu,
    dtype: Dtype,
    bytes: &[u8],
    cols: usize,
    interleaved16: bool,
    slice: usize,
) -> [Vec<u32>; 3] {
    let row_bytes = dtype.bytes_of(cols).unwrap();
    let (rows, format) = (bytes.len() / row_bytes, native_format(dtype));
    let lens = [rows * format.data_words(cols), rows * format.scale_words(cols)];
    let [data, scales] = lens.map(|len| zeros(gpu, len));
    let faults = upload(gpu, &[u32::MAX; 4]);
    for (index, bytes) in bytes.chunks(slice * row_bytes).enumerate() {
        let rows = bytes.len() / row_bytes;
        let header = Repack::header(rows, index * slice, 1000 + index * slice, 2);
        // The words after the rows must not matter.
        let mut source =
            [bytemuck::cast_slice(&header), bytes, &[0xff; Repack::SLACK_BYTES]].concat();
        source.resize(source.len().next_multiple_of(4), 0xff);
        let source: Vec<u32> = bytemuck::pod_collect_to_vec(&source);
        let source = upload(gpu, &source);
        let buffers =
            [("stored", &source), ("data", &data), ("scales", &scales), ("faults", &faults)];
        run(gpu, &Repack { dtype, cols, rows, interleaved16 }, &buffers, 0, 0);
    }
    [download(gpu, &data, lens[0]), download(gpu, &scales, lens[1]), download(gpu, &faults, 4)]
}

/// The twin's data and scales.
fn expected(packed: &PackedRows, interleaved16: bool) -> [Vec<u32>; 2] {
    let (data_words, scale_words) =
        (packed.format.data_words(packed.cols), packed.format.scale_words(packed.cols));
    match interleaved16 {
        true => {
            let unit = packed.format.scale_unit();
            [tile(&packed.data, data_words, 4), tile(&packed.scales, scale_words, unit)]
        }
        false => [packed.data.clone(), packed.scales.clone()],
    }
}

#[test]
fn stored_rows_are_laid_out_as_the_host_does() {
    // One slice, or several with a shorter last one.
    let cuts = [(1, 1, false), (37, 37, false), (37, 16, false), (80, 32, true)];
    let has_scales = |dtype| native_format(dtype).scale_words(columns(dtype)[0]) > 0;
    let is_possible =
        |_: &Gpu, [dtype, _, cut]: [usize; 3]| !cuts[cut].2 || has_scales(STORED[dtype]);
    for (gpu, [index, cols, cut]) in on_devices_where([STORED.len(), 3, cuts.len()], is_possible) {
        let dtype = STORED[index];
        let format = native_format(dtype);
        assert!(Repack::supports(dtype, format));
        let cols = columns(dtype)[cols];
        let (rows, slice, interleaved16) = cuts[cut];
        let bytes = stored(dtype, rows, cols, (7 * cols + rows + index) as u64);
        let packed = pack_rows(dtype, &bytes, rows, cols, format).unwrap();
        let [data, scales, faults] = repack(gpu, dtype, &bytes, cols, interleaved16, slice);
        let what = format!(
            "{dtype}, [{rows}, {cols}] by {slice}, interleaved16: {interleaved16} on {:?}",
            gpu.target()
        );
        let [expected_data, expected_scales] = expected(&packed, interleaved16);
        assert!(data == expected_data, "data of {what}");
        assert!(scales == expected_scales, "scales of {what}");
        assert_eq!(faults, [u32::MAX; 4], "{what}");
    }
}

/// The kernel notes the first row with a value that no format can represent.
/// The position in the row does not matter, and other slots do not change.
#[test]
fn what_cannot_be_held_is_noted() {
    let gpu = &devices()[0];
    for dtype in STORED {
        let (rows, cols) = (2 * TILE_ROWS, columns(dtype)[1]);
        let row_bytes = dtype.bytes_of(cols).unwrap();
        let (first_step, step_count) = match dtype {
            Dtype::Packed(format) => (4 * format.data_words(cols), 1),
            _ => (
                step_byte(dtype),
                if matches!(dtype, Dtype::Q4_1 | Dtype::Q5_1 | Dtype::Q4_K | Dtype::Q5_K) {
                    2
                } else {
                    1
                },
            ),
        };
        let size = if dtype == Dtype::F32 { 4 } else { 2 };
        // The row's first scale (or float) and its last.
        let last = match (dtype, dtype.block_len()) {
            (_, 1) => row_bytes - size,
            _ => row_bytes - dtype.block_bytes() + step_byte(dtype),
        };
        for (at, bad) in [first_step, last]
            .into_iter()
            .flat_map(|at| [f32::NAN, f32::INFINITY].map(|bad| (at, bad)))
        {
            for step in 0..step_count {
                let mut bytes = stored(dtype, rows, cols, 3);
                for row in [21, 30] {
                    let place = &mut bytes[row * row_bytes + at + 2 * step..];
                    match dtype {
                        Dtype::F32 => place[..4].copy_from_slice(&bad.to_le_bytes()),
                        Dtype::BF16 => {
                            place[..2].copy_from_slice(&bf16::from_f32(bad).to_le_bytes())
                        }
                        _ => place[..2].copy_from_slice(&f16::from_f32(bad).to_le_bytes()),
                    }
                }
                let what = format!("{dtype}, byte {at}, step {step}, {bad}");
                assert!(
                    pack_rows(dtype, &bytes, rows, cols, native_format(dtype)).is_err(),
                    "{what}"
                );
                let [.., faults] = repack(gpu, dtype, &bytes, cols, false, TILE_ROWS);
                assert_eq!(faults, [u32::MAX, u32::MAX, 1021, u32::MAX], "{what}");
            }
        }
    }
}

/// The product of a finite d and a small integer that is too large for f16.
#[test]
fn a_scale_beyond_f16_is_noted() {
    let gpu = &devices()[0];
    for dtype in [Dtype::Q4_K, Dtype::Q5_K, Dtype::IQ4_XS] {
        let mut bytes = stored(dtype, 3, 512, 9);
        let at = dtype.bytes_of(512).unwrap();
        bytes[at..at + 2].copy_from_slice(&f16::MAX.to_le_bytes());
        // The next two bytes are dmin, or upper bits of scales. The last one is a scale.
        // The scale is 2, or 2 - 32 in IQ4_XS.
        bytes[at + 2..at + 5].copy_from_slice(&[0, 0, 2]);
        assert!(pack_rows(dtype, &bytes, 3, 512, native_format(dtype)).is_err(), "{dtype}");
        let [.., faults] = repack(gpu, dtype, &bytes, 512, false, 3);
        assert_eq!(faults[2], 1001, "{dtype}");
    }
}

#[test]
fn only_what_keeps_its_format_is_laid_out_on_the_device() {
    assert!(!Repack::supports(Dtype::BF16, PackFormat::INT4));
    assert!(!Repack::supports(Dtype::Q5_K, PackFormat::INT8));
    assert!(!Repack::supports(Dtype::Packed(PackFormat::F16), PackFormat::F16));
}
