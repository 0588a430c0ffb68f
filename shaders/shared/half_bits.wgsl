// Conversions of f16 by integer operations.
// Devices may round to f16 in any direction, and may flush its smallest values to zero.

const HALF_INFINITY: u32 = 0x7c00u;

// The bits of the nearest f16, with ties to even. Too large values become HALF_INFINITY with a
// sign.
fn to_half(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    if magnitude >= 0x477ff000u {
        return sign | HALF_INFINITY;
    }
    if magnitude >= 0x38800000u {
        let rebiased = magnitude - 0x38000000u;
        return sign | ((rebiased + 0xfffu + ((rebiased >> 13u) & 1u)) >> 13u);
    }
    // Counts steps of 2^-24. Less than half a step is zero.
    let shift = 126u - (magnitude >> 23u);
    if shift > 24u {
        return sign;
    }
    let mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    let steps = mantissa >> shift;
    let rest = mantissa & ((1u << shift) - 1u);
    let half = 1u << (shift - 1u);
    return sign | (steps + select(0u, 1u, rest > half || (rest == half && (steps & 1u) == 1u)));
}

// The bits of the f16 nearest to a finite f16 times a small integer, with the sign of the f16.
fn scaled_half(half: u32, factor: u32) -> u32 {
    // The sign is set by bits, because devices may lose the sign of zero.
    return (half & 0x8000u) | to_half(from_half(half & 0x7fffu) * f32(factor));
}

// The value of a finite f16.
fn from_half(half: u32) -> f32 {
    let exponent = (half >> 10u) & 31u;
    let mantissa = half & 0x3ffu;
    let normal = bitcast<f32>(((exponent + 112u) << 23u) | (mantissa << 13u));
    let magnitude = select(normal, f32(mantissa) * 0x1p-24f, exponent == 0u);
    return select(magnitude, -magnitude, (half & 0x8000u) != 0u);
}
