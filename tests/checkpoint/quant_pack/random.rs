//! Random rows: rounding errors, padding and slices.

use super::*;

/// A matrix of floats with random size and magnitude.
fn matrix() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1usize..5, 1usize..100, -24i32..8).prop_flat_map(|(rows, cols, exponent)| {
        let magnitude = 2f32.powi(exponent);
        (Just(cols), vec(-magnitude..magnitude, rows * cols))
    })
}

/// Blocks of random bytes, with finite scales whose products fit f16.
fn block_rows(dtype: Dtype) -> impl Strategy<Value = (usize, Vec<u8>)> {
    (1usize..4, 1usize..4).prop_flat_map(move |(rows, blocks)| {
        vec(any::<u8>(), rows * blocks * dtype.block_bytes()).prop_map(move |mut bytes| {
            for block in bytes.chunks_mut(dtype.block_bytes()) {
                let high_bytes: &[usize] = if dtype == Dtype::Q6_K { &[209] } else { &[1, 3] };
                high_bytes.iter().for_each(|&at| block[at] &= 0x9f);
            }
            (blocks * dtype.block_len(), bytes)
        })
    })
}

proptest! {
    #[test]
    fn rounding_stays_within_its_bound(
        (cols, values) in matrix(),
        format in select(int_formats()),
    ) {
        let rows = values.len() / cols;
        let bytes = encode(Dtype::F32, &values);
        let packed = pack_rows(Dtype::F32, &bytes, rows, cols, format).unwrap();
        let PackFormat::Int { group, .. } = format else { unreachable!() };
        for (row, values) in values.chunks(cols).enumerate() {
            let mut found = vec![f32::NAN; cols];
            packed.dequantize_row(row, &mut found);
            for (found, values) in found.chunks(group as usize).zip(values.chunks(group as usize)) {
                for (found, &value) in found.iter().zip(values) {
                    let bound = error_bound(format, values, value);
                    let error = (found - value).abs();
                    prop_assert!(error <= bound, "{found} for {value}, bound {bound}");
                }
            }
        }
    }

    #[test]
    fn padding_is_zero(
        (cols, values) in matrix(),
        format in select(int_formats()),
        dtype in select(floats()),
    ) {
        for format in [format, native_format(dtype)] {
            let (bytes, rows) = (encode(dtype, &values), values.len() / cols);
            let packed = pack_rows(dtype, &bytes, rows, cols, format).unwrap();
            prop_assert_eq!(packed.data.len(), packed.rows * format.data_words(cols));
            prop_assert_eq!(packed.scales.len(), packed.rows * format.scale_words(cols));
            let real = unpack(&packed);
            let padded = unpack_padded(packed);
            let offset = matches!(format, PackFormat::Int { offset: true, .. });
            for (padded, real) in padded.chunks(padded_cols(cols)).zip(real.chunks(cols)) {
                prop_assert_eq!(&padded[..cols], real);
                prop_assert!(offset || padded[cols..].iter().all(|&value| value == 0.0));
            }
        }
    }

    #[test]
    fn floats_are_copied((cols, values) in matrix(), dtype in select(floats())) {
        let bytes = encode(dtype, &values);
        let rows = values.len() / cols;
        let packed = pack_rows(dtype, &bytes, rows, cols, native_format(dtype)).unwrap();
        let found = unpack(&packed);
        prop_assert_eq!(&found, &dequantize(dtype, &bytes).unwrap());
        prop_assert_eq!(encode(dtype, &found), bytes);
    }

    #[test]
    fn rows_stand_alone(
        (cols, values) in matrix(),
        format in select(int_formats()),
        dtype in select(floats()),
    ) {
        let bytes = encode(dtype, &values);
        for format in [format, native_format(dtype)] {
            rows_equal_the_whole(dtype, &bytes, cols, format)?;
        }
    }

    #[test]
    fn block_rows_stand_alone(
        (dtype, (cols, bytes)) in
            select(blocks()).prop_flat_map(|dtype| (Just(dtype), block_rows(dtype))),
    ) {
        rows_equal_the_whole(dtype, &bytes, cols, native_format(dtype))?;
    }

    #[test]
    fn any_sizes_give_a_result(
        dtype in select(ALL.to_vec()),
        len in 0usize..1000,
        rows in prop_oneof![any::<usize>(), 0usize..4],
        cols in prop_oneof![any::<usize>(), 0usize..600],
    ) {
        let row_bytes = dtype.bytes_of(cols).ok();
        let fits = row_bytes.and_then(|bytes| bytes.checked_mul(rows)) == Some(len);
        let packed = pack_rows(dtype, &vec![0; len], rows, cols, native_format(dtype));
        prop_assert_eq!(packed.is_ok(), fits);
    }

    #[test]
    fn any_bytes_give_finite_weights_or_an_error((dtype, blocks, bytes) in any_blocks()) {
        let values = dequantize(dtype, &bytes);
        if let Ok(values) = &values {
            prop_assert!(values.iter().all(|value| value.is_finite()));
        }
        for format in [native_format(dtype), PackFormat::INT4, PackFormat::INT8] {
            if let Ok(packed) = pack_rows(dtype, &bytes, 1, blocks * dtype.block_len(), format) {
                prop_assert!(values.is_ok());
                prop_assert!(unpack_padded(packed).iter().all(|value| value.is_finite()));
            }
        }
    }
}

/// Blocks of random bytes, most of them valid.
fn any_blocks() -> impl Strategy<Value = (Dtype, usize, Vec<u8>)> {
    (select(ALL.to_vec()), 1usize..5).prop_flat_map(|(dtype, blocks)| {
        (Just(dtype), Just(blocks), vec(any::<u8>(), blocks * dtype.block_bytes()))
    })
}

/// Rows packed one by one have the same words as rows packed together.
fn rows_equal_the_whole(
    dtype: Dtype,
    bytes: &[u8],
    cols: usize,
    format: PackFormat,
) -> Result<(), TestCaseError> {
    let row_bytes = dtype.bytes_of(cols).unwrap();
    let whole = pack_rows(dtype, bytes, bytes.len() / row_bytes, cols, format).unwrap();
    let (mut data, mut scales) = (Vec::new(), Vec::new());
    for row in bytes.chunks(row_bytes) {
        let row = pack_rows(dtype, row, 1, cols, format).unwrap();
        data.extend(row.data);
        scales.extend(row.scales);
    }
    prop_assert_eq!(whole.data, data);
    prop_assert_eq!(whole.scales, scales);
    Ok(())
}
