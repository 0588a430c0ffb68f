use super::*;

const ROWS: usize = 6;
const COLS: usize = 200;

/// Bell-shaped weights with a few outliers, as bf16.
fn weights() -> Vec<u8> {
    let mut state = 12345u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let value = |i: usize, next: &mut dyn FnMut() -> f32| {
        let bell = (0..6).map(|_| next()).sum::<f32>() * 0.05;
        if i % 67 == 3 { 4.0 * bell } else { bell + 0.01 }
    };
    let values: Vec<f32> = (0..ROWS * COLS).map(|i| value(i, &mut next)).collect();
    values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect()
}

fn error(spec: Spec) -> f64 {
    let (packed, squares) = spec.quantize(Dtype::BF16, &weights(), ROWS, COLS).unwrap();
    assert_eq!(packed.format, spec.format());
    (squares.error / squares.weight).sqrt()
}

#[test]
fn searching_is_better_than_the_range() {
    for (bits, symmetric) in [(4, true), (4, false), (8, true), (8, false)] {
        let of = |method| error(Spec { bits, group: Some(32), symmetric, method });
        let (plain, clip, hqq) = (of(Method::MinMax), of(Method::MseClip), of(Method::Hqq));
        assert!(
            clip <= 1.001 * plain && hqq <= 1.001 * plain,
            "{bits} {symmetric}: {plain}, clip {clip}, hqq {hqq}"
        );
        if bits == 4 && symmetric {
            assert!(clip < 0.99 * plain && hqq < 0.99 * plain, "{plain}, clip {clip}, hqq {hqq}");
        }
    }
}

#[test]
fn smaller_groups_and_offsets_are_more_exact() {
    let of = |group| error(Spec { bits: 4, group, symmetric: false, method: Method::MseClip });
    let errors = [Some(16), Some(32), Some(64), None].map(of);
    assert!(errors.is_sorted(), "{errors:?}");
    assert!(error(Spec::min_max(8)) < 0.1 * error(Spec::min_max(4)));
}

#[test]
fn min_max_is_what_loading_makes() {
    let groups = [16, 32, 64, 128].map(Some);
    for (bits, group) in [4, 8].into_iter().flat_map(|bits| groups.map(|group| (bits, group))) {
        let spec = Spec { group, ..Spec::min_max(bits) };
        assert_eq!(spec.format().to_string(), format!("int{bits} g{}", group.unwrap_or_default()));
        let (packed, _) = spec.quantize(Dtype::BF16, &weights(), ROWS, COLS).unwrap();
        assert_eq!(packed, pack_rows(Dtype::BF16, &weights(), ROWS, COLS, spec.format()).unwrap());
        // The search reaches the same integers in another way.
        assert_eq!(spec.search(Dtype::BF16, &weights(), ROWS, COLS, None).unwrap(), packed);
    }
}

#[test]
fn a_row_with_one_scale_repeats_it() {
    let spec = Spec { bits: 8, group: None, symmetric: true, method: Method::MinMax };
    let (packed, _) = spec.quantize(Dtype::BF16, &weights(), ROWS, COLS).unwrap();
    for row in 0..ROWS {
        let mut scales = Vec::new();
        packed.for_each_group(row, |_, _, scale, _| scales.push(scale));
        assert!(scales.iter().all(|scale| *scale == scales[0] && *scale > 0.0), "{scales:?}");
    }
}

#[test]
fn what_is_not_finite_is_named() {
    for method in [Method::MinMax, Method::MseClip, Method::Hqq] {
        let spec = Spec { bits: 4, group: Some(32), symmetric: true, method };
        let mut bytes = weights();
        bytes[2 * (COLS + 70)..][..2].copy_from_slice(&half::bf16::NAN.to_le_bytes());
        let reason = spec.quantize(Dtype::BF16, &bytes, ROWS, COLS).unwrap_err();
        assert!(reason.contains("row 1 of 6") && reason.contains("column 70 is NaN"), "{reason}");
        let zeros = vec![0; 2 * COLS];
        let (packed, squares) = spec.quantize(Dtype::BF16, &zeros, 1, COLS).unwrap();
        assert_eq!((squares.error, packed.scales.iter().max()), (0.0, Some(&0)));
    }
}
