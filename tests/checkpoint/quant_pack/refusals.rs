//! Values that cannot be packed, and the errors for them.

use super::*;

#[test]
fn names_values_that_are_not_finite() {
    for dtype in floats() {
        for format in int_formats().into_iter().chain([native_format(dtype)]) {
            for (bad, shown) in
                [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")]
            {
                let mut values = [0.5; 3 * 45];
                values[2 * 45 + 37] = bad;
                values[2 * 45 + 40] = bad;
                let reason = pack_rows(dtype, &encode(dtype, &values), 3, 45, format).unwrap_err();
                assert_eq!(
                    reason,
                    format!("row 2 of 3, column 37 is {shown}"),
                    "{dtype:?} as {format}"
                );
                let reason = dequantize(dtype, &encode(dtype, &values)).unwrap_err();
                assert_eq!(reason, format!("value 127 is {shown}"));
            }
        }
    }
}

#[test]
fn refuses_weights_beyond_f16_scales() {
    for format in int_formats() {
        let mut values = [0.0; 64];
        values[40] = 3e38;
        values[41] = -3e38;
        let reason = pack_f32(&values, format).unwrap_err();
        let start = 40 / format.group().unwrap() * format.group().unwrap();
        let place = format!("row 0 of 1, columns from {start}: the scale ");
        assert!(reason.starts_with(&place), "{format}: {reason}");
        assert!(
            reason.contains("f16's largest value, 65504") || reason.ends_with("is inf"),
            "{format}: {reason}"
        );
    }
    let reason = pack_f32(&[1e6; 32], int(4, 32, true)).unwrap_err();
    assert!(reason.contains("the offset 1e6 is beyond f16's largest value"), "{reason}");
}

#[test]
fn refuses_formats_that_cannot_hold_a_type() {
    let cases = [
        (Dtype::F32, PackFormat::F16, "F32 cannot be packed as f16"),
        (Dtype::BF16, PackFormat::F16, "BF16 cannot be packed as f16"),
        (Dtype::Q4_0, PackFormat::INT8, "Q4_0 cannot be packed as int8 g32"),
        (Dtype::Q6_K, PackFormat::INT8, "Q6_K cannot be packed as int8 g32"),
        (Dtype::F32, int(5, 32, false), "F32 cannot be packed as int5 g32"),
        (Dtype::F32, int(4, 0, true), "F32 cannot be packed as int4 g0+offset"),
    ];
    for (dtype, format, message) in cases {
        assert_eq!(pack_rows(dtype, &[0; 4096], 1, 256, format).unwrap_err(), message);
    }
}

#[test]
fn refuses_sizes_that_do_not_fit() {
    for dtype in ALL {
        let (format, cols) = (native_format(dtype), 2 * dtype.block_len());
        let bytes = vec![0; dtype.bytes_of(3 * cols).unwrap()];
        assert!(pack_rows(dtype, &bytes, 3, cols, format).is_ok());
        for (rows, cols) in
            [(2, cols), (4, cols), (0, cols), (usize::MAX, cols), (1, usize::MAX - 255), (3, 0)]
        {
            let reason = pack_rows(dtype, &bytes, rows, cols, format).unwrap_err();
            assert!(
                reason.contains("bytes") || reason.contains("address space"),
                "{dtype:?}: {reason}"
            );
        }
        assert!(pack_rows(dtype, &bytes[1..], 3, cols, format).is_err());
        assert!(dequantize(dtype, &bytes[1..]).is_err());
        let nothing = pack_rows(dtype, &[], 0, cols, format).unwrap();
        assert!(nothing.data.is_empty() && nothing.scales.is_empty());
    }
    let reason = pack_rows(Dtype::Q4_K, &[0; 144], 1, 32, native_format(Dtype::Q4_K)).unwrap_err();
    assert_eq!(reason, "32 elements do not fill blocks of 256 (Q4_K)");
}
