//! ggml's numbers of element types.

use crate::quant::Dtype;

/// ggml's name of an element type, for messages.
pub(super) fn type_name(type_id: u32) -> String {
    let name = match type_id {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        6 => "Q5_0",
        7 => "Q5_1",
        8 => "Q8_0",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        12 => "Q4_K",
        13 => "Q5_K",
        14 => "Q6_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        30 => "BF16",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        other => return format!("number {other}"),
    };
    name.into()
}

/// The element type with this number in ggml. `None` for types that are not read.
pub(super) fn dtype(type_id: u32) -> Option<Dtype> {
    Some(match type_id {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::Q4_0,
        3 => Dtype::Q4_1,
        6 => Dtype::Q5_0,
        7 => Dtype::Q5_1,
        8 => Dtype::Q8_0,
        12 => Dtype::Q4_K,
        13 => Dtype::Q5_K,
        14 => Dtype::Q6_K,
        20 => Dtype::IQ4_NL,
        23 => Dtype::IQ4_XS,
        30 => Dtype::BF16,
        _ => return None,
    })
}

/// ggml's number of an element type. `None` for packed rows.
pub(super) fn type_id(dtype: Dtype) -> Option<u32> {
    (0..=30).find(|id| self::dtype(*id) == Some(dtype))
}
