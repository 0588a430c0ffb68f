//! Packed rows as ggml's blocks (`ggml-common.h`), without a change of values.

use std::borrow::Cow;

use half::f16;

use crate::model::source::TensorInfo;
use crate::quant::{Dtype, PackFormat, PackedRows, pack_rows, q4_k_blocks};

const BLOCK: usize = 32;

/// The block type that holds a matrix exactly.
///
/// Errors: there is none, with the reason.
pub fn block_type(info: &TensorInfo) -> Result<Dtype, String> {
    let Dtype::Packed(format) = info.dtype else { return Ok(info.dtype) };
    let cols = info.shape.last().copied().unwrap_or(0);
    match format {
        _ if !cols.is_multiple_of(BLOCK) => {
            Err(format!("{cols} columns do not fill GGUF's blocks of {BLOCK}"))
        }
        // Larger groups repeat their scales.
        PackFormat::Int { bits: 4, group: 32.., offset: false } => Ok(Dtype::Q4_0),
        PackFormat::Int { bits: 4, group: 32.., offset: true } => Ok(Dtype::Q4_1),
        PackFormat::Int { bits: 8, group: 32.., offset: false } => Ok(Dtype::Q8_0),
        PackFormat::Q4K if cols.is_multiple_of(Dtype::Q4_K.block_len()) => Ok(Dtype::Q4_K),
        PackFormat::F32 => Ok(Dtype::F32),
        PackFormat::F16 => Ok(Dtype::F16),
        PackFormat::BF16 => Ok(Dtype::BF16),
        _ => Err(format!("no GGUF type that is written here holds {format} exactly")),
    }
}

/// The blocks of `rows` rows.
pub fn convert<'a>(
    info: &TensorInfo,
    bytes: &'a [u8],
    rows: usize,
) -> Result<Cow<'a, [u8]>, String> {
    let (Dtype::Packed(format), &[_, cols]) = (info.dtype, info.shape.as_slice()) else {
        return Ok(bytes.into());
    };
    let packed = || pack_rows(info.dtype, bytes, rows, cols, format);
    match format {
        PackFormat::Int { bits, offset, .. } => Ok(simple_blocks(&packed()?, bits, offset).into()),
        PackFormat::Q4K => Ok(q4_k_blocks(&packed()?).into()),
        _ => Ok(bytes.into()),
    }
}

/// Blocks of 32 integers that follow their scale and offset.
fn simple_blocks(packed: &PackedRows, bits: u8, has_offset: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for row in 0..packed.rows {
        packed.for_each_group(row, |_, q, scale, offset| {
            for q in q.chunks_exact(BLOCK) {
                // These were f16 before.
                out.extend(f16::from_f32(scale).to_le_bytes());
                if has_offset {
                    out.extend(f16::from_f32(offset).to_le_bytes());
                }
                match bits {
                    4 => {
                        let zero_point = if has_offset { 0 } else { 8 };
                        let (low, high) = q.split_at(BLOCK / 2);
                        let nibble = |q: &i8| (q + zero_point) as u8;
                        out.extend(
                            low.iter().zip(high).map(|(low, high)| nibble(low) | nibble(high) << 4),
                        );
                    }
                    _ => out.extend(q.iter().map(|q| *q as u8)),
                }
            }
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{dequantize, native_format};

    /// The blocks decode to the same values.
    #[test]
    fn blocks_hold_the_same_values() {
        let (rows, cols) = (3, 64);
        let values: Vec<f32> =
            (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 45.0) / 50.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        for (offset, bits, wanted) in
            [(false, 4, Dtype::Q4_0), (true, 4, Dtype::Q4_1), (false, 8, Dtype::Q8_0)]
        {
            let format = PackFormat::Int { bits, group: 32, offset };
            let packed = match offset {
                false => pack_rows(Dtype::F32, &bytes, rows, cols, format).unwrap(),
                // Rounding makes no offsets, but a file's blocks have them.
                true => {
                    let block: Vec<u8> = (0..20)
                        .map(|i| [0x11, 0x2c, 0xe3, 0xb1].get(i).copied().unwrap_or(i as u8 * 13))
                        .collect();
                    pack_rows(Dtype::Q4_1, &block.repeat(rows * cols / 32), rows, cols, format)
                        .unwrap()
                }
            };
            let info = TensorInfo { dtype: Dtype::Packed(format), shape: vec![rows, cols] };
            assert_eq!(block_type(&info), Ok(wanted));
            assert_eq!(native_format(wanted), format);
            let stored = packed.to_bytes();
            let blocks = convert(&info, &stored, rows).unwrap();
            let found = dequantize(wanted, &blocks).unwrap();
            for (row, found) in found.chunks(cols).enumerate() {
                let mut expected = vec![0.0; cols];
                packed.dequantize_row(row, &mut expected);
                assert_eq!(found, expected, "{format}, row {row}");
            }
            assert_eq!(pack_rows(wanted, &blocks, rows, cols, format).unwrap().to_bytes(), stored);
        }
    }

    #[test]
    fn blocks_of_q4_k_are_what_they_were() {
        let (rows, cols) = (2, 512);
        let blocks: Vec<u8> = (0..rows * cols / 256 * 144)
            .map(|i| {
                [0x11, 0x2c, 0xe3, 0xb1].get(i % 144).copied().unwrap_or((i * i / 5 + i) as u8)
            })
            .collect();
        let stored =
            pack_rows(Dtype::Q4_K, &blocks, rows, cols, PackFormat::Q4K).unwrap().to_bytes();
        let info = TensorInfo { dtype: Dtype::Packed(PackFormat::Q4K), shape: vec![rows, cols] };
        assert_eq!(block_type(&info), Ok(Dtype::Q4_K));
        assert_eq!(*convert(&info, &stored, rows).unwrap(), blocks);
        let narrow = TensorInfo { shape: vec![rows, 96], ..info };
        assert!(block_type(&narrow).unwrap_err().contains("q4_k"));
    }

    #[test]
    fn larger_groups_repeat_their_scales() {
        let (rows, cols) = (2, 160);
        let values: Vec<f32> =
            (0..rows * cols).map(|i| ((i * 37 % 101) as f32 - 45.0) / 50.0).collect();
        for (bits, group, offset) in [(4, 64, false), (4, 128, true), (8, 128, false)] {
            let format = PackFormat::Int { bits, group, offset };
            let packed =
                pack_rows(Dtype::F32, bytemuck::cast_slice(&values), rows, cols, format).unwrap();
            let info = TensorInfo { dtype: Dtype::Packed(format), shape: vec![rows, cols] };
            let stored = packed.to_bytes();
            let found =
                dequantize(block_type(&info).unwrap(), &convert(&info, &stored, rows).unwrap())
                    .unwrap();
            for (row, found) in found.chunks(cols).enumerate() {
                let mut expected = vec![0.0; cols];
                packed.dequantize_row(row, &mut expected);
                assert_eq!(found, expected, "{format}, row {row}");
            }
        }
    }

    #[test]
    fn what_has_no_blocks() {
        let of = |bits, group, offset, cols| {
            block_type(&TensorInfo {
                dtype: Dtype::Packed(PackFormat::Int { bits, group, offset }),
                shape: vec![1, cols],
            })
        };
        assert!(of(8, 32, true, 64).unwrap_err().contains("int8 g32+offset"));
        assert!(of(8, 16, false, 64).is_err() && of(4, 16, false, 64).is_err());
        let info = TensorInfo { dtype: Dtype::Packed(PackFormat::Iq4), shape: vec![1, 64] };
        assert!(block_type(&info).unwrap_err().contains("iq4 g32"));
        assert!(
            of(6, 16, false, 64).unwrap_err().contains("int6 g16") && of(5, 32, true, 64).is_err()
        );
        assert!(of(4, 32, false, 48).unwrap_err().contains("48 columns"));
    }
}
