//! Floats of files as f32.

use half::{f16, slice::HalfFloatSliceExt};

use crate::quant::{Dtype, round::MAX_GROUP};

/// Little-endian floats of a plain type as f32; `bytes` and `values` hold the same number of them.
#[inline]
pub(super) fn load_floats(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    match dtype {
        Dtype::F16 => {
            // By the slice, because half looks for the instruction at every call.
            for (values, bytes) in values.chunks_mut(MAX_GROUP).zip(bytes.chunks(2 * MAX_GROUP)) {
                let mut halves = [f16::ZERO; MAX_GROUP];
                for (half, bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
                    *half = f16::from_le_bytes(*bytes);
                }
                halves[..values.len()].convert_to_f32_slice(values);
            }
        }
        Dtype::BF16 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_bits((u16::from_le_bytes(*bytes) as u32) << 16);
            }
        }
        _ => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
    }
}
