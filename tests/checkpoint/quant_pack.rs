//! Packing floats: layout, rounding errors, padding, slices of rows and invalid input.

use gemma4_wgpu::quant::{
    Dtype, PackFormat, PackedRows, Quantize, dequantize, native_format, pack_rows, padded_cols,
};
use half::{bf16, f16};
use proptest::{collection::vec, prelude::*, sample::select};

mod random;
mod refusals;

const ALL: [Dtype; 13] = [
    Dtype::F32,
    Dtype::F16,
    Dtype::BF16,
    Dtype::Q4_0,
    Dtype::Q4_1,
    Dtype::Q5_0,
    Dtype::Q5_1,
    Dtype::Q8_0,
    Dtype::Q4_K,
    Dtype::Q5_K,
    Dtype::Q6_K,
    Dtype::IQ4_NL,
    Dtype::IQ4_XS,
];

fn floats() -> Vec<Dtype> {
    ALL.into_iter().filter(|dtype| dtype.is_float()).collect()
}

fn blocks() -> Vec<Dtype> {
    ALL.into_iter().filter(|dtype| !dtype.is_float()).collect()
}

fn int(bits: u8, group: u32, offset: bool) -> PackFormat {
    PackFormat::Int { bits, group, offset }
}

fn int_formats() -> Vec<PackFormat> {
    let mut formats = Vec::new();
    for bits in [4, 8] {
        for group in [16, 32, 64, 128] {
            formats.extend([int(bits, group, false), int(bits, group, true)]);
        }
    }
    formats
}

fn encode(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        Dtype::BF16 => {
            values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect()
        }
        _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
    }
}

fn unpack(packed: &PackedRows) -> Vec<f32> {
    let mut values = vec![f32::NAN; packed.rows * packed.cols];
    for (row, values) in values.chunks_mut(packed.cols).enumerate() {
        packed.dequantize_row(row, values);
    }
    values
}

/// Includes the padding columns, because kernels read all of them.
fn unpack_padded(mut packed: PackedRows) -> Vec<f32> {
    packed.cols = padded_cols(packed.cols);
    unpack(&packed)
}

fn pack_f32(values: &[f32], format: PackFormat) -> Result<PackedRows, String> {
    pack_rows(Dtype::F32, &encode(Dtype::F32, values), 1, values.len(), format)
}

/// The largest error that rounding may cause for a value of a group, by the rules in
/// `quant::round`.
fn error_bound(format: PackFormat, group: &[f32], value: f32) -> f32 {
    let PackFormat::Int { bits, offset, .. } = format else { return 0.0 };
    let amax = group.iter().fold(0f32, |amax, x| amax.max(x.abs()));
    let min = group.iter().fold(f32::INFINITY, |min, &x| min.min(x));
    let max = group.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    // A scale's rounding error in f16, times the largest number of steps from 0 (or from the
    // offset).
    let scale_error = |scale: f32, steps: f32| steps * (scale / 2048.0).max(2f32.powi(-25));
    let bound = match (bits, offset) {
        (4, false) => {
            let step = amax / 8.0;
            // On the side opposite to the extreme there are at most 7 steps.
            let extreme = group.iter().find(|x| x.abs() == amax).copied().unwrap_or(0.0);
            let beyond = if value * extreme < 0.0 { value.abs() - 7.0 * step } else { 0.0 };
            beyond.max(step / 2.0) + scale_error(step, 8.0)
        }
        (_, false) => amax / 127.0 / 2.0 + scale_error(amax / 127.0, 127.0),
        (bits, true) => {
            let steps = if bits == 4 { 15.0 } else { 255.0 };
            let step = (max - min) / steps;
            let offset_error = (amax + max - min) / 2048.0 + 2f32.powi(-25);
            step / 2.0 + scale_error(step, steps) + offset_error
        }
    };
    bound * 1.001
}

#[test]
fn layout_is_as_documented() {
    // The extreme, −8, gives scale 1 and q = value + 8.
    let values: Vec<f32> = (0..32).map(|i| (i % 16) as f32 - 8.0).collect();
    let packed = pack_f32(&values, PackFormat::INT4).unwrap();
    // Byte b of word 0 has weight b in its low half and weight 4 + b in its high half.
    assert_eq!(packed.data, [0x73625140, 0xfbead9c8, 0x73625140, 0xfbead9c8]);
    assert_eq!(packed.scales, [0x3c00]);

    let values: Vec<f32> =
        (0..64).map(|i| if i < 32 { -127.0 + i as f32 } else { 254.0 - 2.0 * i as f32 }).collect();
    let packed = pack_f32(&values, PackFormat::INT8).unwrap();
    assert_eq!(packed.data[0], 0x84838281);
    assert_eq!(packed.data.len(), 16);
    // 1.0 is in the low half and 190/127 in the high half.
    assert_eq!(packed.scales, [0x3c00 | (f16::from_f32(190.0 / 127.0).to_bits() as u32) << 16]);

    let values: Vec<f32> = (0..32).map(|i| 3.0 + (i % 16) as f32 * 0.5).collect();
    let packed = pack_f32(&values, int(4, 32, true)).unwrap();
    assert_eq!(packed.data, [0x73625140, 0xfbead9c8, 0x73625140, 0xfbead9c8]);
    assert_eq!(
        packed.scales,
        [f16::from_f32(0.5).to_bits() as u32 | (f16::from_f32(3.0).to_bits() as u32) << 16]
    );

    // In int8 with an offset, weight 0 is q = −128. The offset is the value of q = 0.
    let values: Vec<f32> = (0..32).map(|i| if i == 0 { -128.0 } else { 127.0 }).collect();
    let packed = pack_f32(&values, int(8, 32, true)).unwrap();
    assert_eq!(
        (packed.data[0], packed.data[1], packed.scales[0]),
        (0x7f7f7f80, 0x7f7f7f7f, 0x3c00)
    );

    let halves = encode(Dtype::F16, &[1.0, -2.0, 0.5]);
    let packed = pack_rows(Dtype::F16, &halves, 1, 3, PackFormat::F16).unwrap();
    assert_eq!(packed.data[..3], [0xc000_3c00, 0x3800, 0]);
    assert_eq!((packed.data.len(), packed.scales.len()), (16, 0));
}

/// The low bits have the order of int4, and words of high bits follow.
/// With 6 bits, byte b of word w has two bits of weight 16w + 4k + b.
/// With 5 bits, it has one bit of weight 32w + 4k + b.
#[test]
fn layout_of_5_and_6_bits() {
    // Integers from 0 in Q6_K.
    // Low nibbles and pairs of high bits of weights i, 32 + i, 64 + i and 96 + i are together.
    let q = |i: usize| (i * 7 + 3) % 64;
    let mut block = vec![0u8; 210];
    for i in 0..256 {
        let (half, i) = (i / 128, i % 128);
        block[64 * half + i % 64] |= ((q(128 * half + i) & 15) << (4 * (i / 64))) as u8;
        block[128 + 32 * half + i % 32] |= ((q(128 * half + i) >> 4) << (2 * (i / 32))) as u8;
    }
    block[192..208].fill(2);
    block[208..].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
    let packed = pack_rows(Dtype::Q6_K, &block, 1, 256, int(6, 16, false)).unwrap();
    assert_eq!(
        (packed.data.len(), packed.scales.as_slice()),
        (32 + 16, [0x3c00_3c00; 8].as_slice())
    );
    let mut found = vec![0.0; 256];
    packed.dequantize_row(0, &mut found);
    for (i, found) in found.iter().enumerate() {
        // The 6-bit two's complement equals the stored value plus 32.
        let low = packed.data[i / 8] >> (8 * (i % 4) + 4 * (i / 4 % 2)) & 15;
        let high = packed.data[32 + i / 16] >> (8 * (i % 4) + 2 * (i / 4 % 4)) & 3;
        assert_eq!((low | high << 4) as usize, (q(i) + 32) % 64, "{i}");
        assert_eq!(*found, q(i) as f32 - 32.0);
    }

    // Q5_1: the fifth bit of weight i is bit i of a word. 64 columns leave two words of padding.
    let q = |i: usize| (i * 11 + 5) % 32;
    let mut block = [0u8; 24];
    block[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0xbc]);
    for i in 0..32 {
        block[4 + i / 8] |= ((q(i) >> 4) << (i % 8)) as u8;
        block[8 + i % 16] |= ((q(i) & 15) << (4 * (i / 16))) as u8;
    }
    let packed = pack_rows(Dtype::Q5_1, &block.repeat(2), 1, 64, int(5, 32, true)).unwrap();
    assert_eq!((packed.data.len(), packed.scales.as_slice()), (12, [0xbc00_3800; 2].as_slice()));
    assert_eq!((packed.data[8], &packed.data[10..]), (packed.data[9], &[0, 0][..]));
    for i in 0..32 {
        assert_eq!((packed.data[8] >> (8 * (i % 4) + i / 4) & 1) as usize, q(i) >> 4, "{i}");
    }
    let expected: Vec<f32> = (0..64).map(|i| 0.5 * q(i % 32) as f32 - 1.0).collect();
    assert_eq!(unpack(&packed), expected);
}

/// 256 columns have four words of scales.
/// These are d and dmin, lower bits of scales, lower bits of minima, and upper bits of both.
#[test]
fn layout_of_q4_k() {
    let mut block = [0u8; 144];
    block[..4].copy_from_slice(&[0x00, 0x38, 0x00, 0x34]); // 0.5 and 0.25
    // Group 0 has scale 33 and minimum 18. Group 5 has scale 59 and minimum 44.
    block[4] = 33;
    block[8] = 18;
    block[5] = 0b1100_0000;
    block[9] = 0b1000_0000;
    block[13] = 11 | 12 << 4;
    // The weights of group 0 are low nibbles, those of group 5 high ones.
    let q = |i: usize| (i * 7 + i / 16) % 16;
    for i in 0..32 {
        block[16 + i] = q(i) as u8;
        block[16 + 64 + i] = (q(i) << 4) as u8;
    }
    let packed = pack_rows(Dtype::Q4_K, &block.repeat(2), 1, 512, PackFormat::Q4K).unwrap();
    assert_eq!(packed.scales[..4], [0x3400_3800, 0x00b0_0001, 0x00c0_0002, 0x00b0_0006]);
    assert_eq!((packed.data.len(), packed.scales.len()), (64, 8));
    assert_eq!(
        (packed.data[..32].to_vec(), &packed.scales[..4]),
        (packed.data[32..].to_vec(), &packed.scales[4..])
    );
    let found = unpack(&packed);
    for i in 0..32 {
        assert_eq!(packed.data[i / 8] >> (8 * (i % 4) + 4 * (i / 4 % 2)) & 15, q(i) as u32, "{i}");
        assert_eq!(found[i], 16.5 * q(i) as f32 - 4.5);
        assert_eq!(found[160 + i], 29.5 * q(i) as f32 - 11.0);
    }
    assert_eq!(found[32..160], [0.0; 128]);
}

/// Rows in other programs' files consist of whole blocks. Rows of packed files need not.
#[test]
fn q4_k_rows_may_end_within_a_block() {
    let format = PackFormat::Q4K;
    assert_eq!((format.data_words(300), format.scale_words(300)), (40, 8));
    let block: Vec<u8> =
        (0..144).map(|i| [0, 0x30, 0, 0x31].get(i).copied().unwrap_or((i * 37) as u8)).collect();
    let whole = pack_rows(Dtype::Q4_K, &block.repeat(2), 1, 512, format).unwrap();
    let cut = PackedRows { cols: 300, data: whole.data[..40].to_vec(), ..whole.clone() };
    assert_eq!(unpack(&cut), unpack(&whole)[..300]);
    let stored = pack_rows(Dtype::Packed(format), &cut.to_bytes(), 1, 300, format);
    assert_eq!(stored, Ok(cut));
}

#[test]
fn packed_q4_k_has_finite_scales() {
    let format = PackFormat::Q4K;
    let of = |scales: [u32; 4]| {
        let rows =
            PackedRows { format, rows: 1, cols: 256, data: vec![7; 32], scales: scales.to_vec() };
        pack_rows(Dtype::Packed(format), &rows.to_bytes(), 1, 256, format)
    };
    // Nibbles are never interpreted as f16.
    assert!(of([0x3c00_3c00, 0x7c00_7c00, 0xfc00_7e00, u32::MAX]).is_ok());
    for steps in [0x7c00_3c00, 0x3c00_7e00, 0x3c00_7bff] {
        assert_eq!(
            of([steps, 2, 2, 0]).unwrap_err(),
            "row 0 of 1: a scale or offset is not finite"
        );
    }
}

#[test]
fn widened_integers_are_the_same_weights() {
    for dtype in [Dtype::Q5_0, Dtype::Q5_1, Dtype::Q6_K, Dtype::IQ4_NL] {
        let format = native_format(dtype);
        let cols = 2 * dtype.block_len();
        let bytes: Vec<u8> =
            (0..3 * dtype.bytes_of(cols).unwrap()).map(|i| (i * 37 % 47) as u8).collect();
        let packed = pack_rows(dtype, &bytes, 3, cols, format).unwrap();
        let wide = packed.widened();
        assert!(
            matches!(wide.format, PackFormat::Int { bits: 8, .. })
                && wide.format == format.widened()
        );
        assert_eq!(unpack(&wide), unpack(&packed), "{dtype}");
    }
}

/// The integers do not change, nor do factors that fit f16.
#[test]
fn widened_q4_k_has_an_f16_for_each_scale_and_offset() {
    let block =
        |d: u8| (0..144).map(move |i| [0, d, 0, 0x34].get(i).copied().unwrap_or((i * i) as u8));
    let bytes: Vec<u8> = [0x38, 0x2c, 0x30, 0x3c].into_iter().flat_map(block).collect();
    let packed = pack_rows(Dtype::Q4_K, &bytes, 2, 512, PackFormat::Q4K).unwrap();
    let wide = packed.widened();
    assert_eq!((wide.format, PackFormat::Q4K.widened()), (int(4, 32, true), int(4, 32, true)));
    assert_eq!(unpack(&wide), unpack(&packed));
}

#[test]
fn zeros_give_scale_zero_and_zeros() {
    for format in int_formats() {
        for zero in [0.0, -0.0] {
            let packed = pack_f32(&[zero; 40], format).unwrap();
            assert!(packed.scales.iter().all(|&word| word == 0), "{format}: {:x?}", packed.scales);
            assert!(unpack_padded(packed).iter().all(|&value| value == 0.0), "{format}");
        }
    }
}

#[test]
fn weights_below_f16_become_zero() {
    for format in [PackFormat::INT4, PackFormat::INT8] {
        let packed = pack_f32(&[1e-9, -1e-9, 1e-30, 2e-10], format).unwrap();
        assert_eq!(unpack(&packed), [0.0; 4], "{format}");
    }
}

#[test]
fn equal_weights_with_offset_stay() {
    for bits in [4, 8] {
        let packed = pack_f32(&[0.75; 20], int(bits, 16, true)).unwrap();
        assert_eq!(unpack(&packed), [0.75; 20]);
    }
}

#[test]
fn names_of_formats() {
    let names: Vec<String> = int_formats().iter().map(PackFormat::to_string).collect();
    assert_eq!(names[..3], ["int4 g16", "int4 g16+offset", "int4 g32"]);
    assert_eq!(names[names.len() - 2..], ["int8 g128", "int8 g128+offset"]);
    assert_eq!(
        [PackFormat::F32, PackFormat::F16, PackFormat::BF16].map(|f| f.to_string()),
        ["f32", "f16", "bf16"]
    );
    let formats =
        [PackFormat::INT4, int(4, 32, true), int(5, 32, true), int(6, 16, false), PackFormat::BF16];
    assert_eq!(formats.map(PackFormat::bits_per_weight), [4.5, 5.0, 6.0, 7.0, 16.0]);
    assert_eq!(
        (PackFormat::Iq4.to_string().as_str(), PackFormat::Iq4.bits_per_weight()),
        ("iq4 g32", 4.5)
    );
    assert_eq!(
        (PackFormat::Q4K.to_string().as_str(), PackFormat::Q4K.bits_per_weight()),
        ("q4_k", 4.5)
    );
    for format in int_formats().into_iter().chain(formats).chain([PackFormat::Iq4, PackFormat::Q4K])
    {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    for quantize in [Quantize::Int4, Quantize::Int8, Quantize::None] {
        assert_eq!(quantize.to_string().parse(), Ok(quantize));
    }
    assert_eq!(
        "int3".parse::<Quantize>(),
        Err("unknown quantization \"int3\": use auto, int4, int8 or none".into())
    );
}
