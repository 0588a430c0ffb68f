//! needs: half_bits, stored_rows, weight_layout; constants LOW_VEC4S

// Converts Q6_K to int6 in groups of 16. An invocation has 64 weights, a quarter of a block.
// A block is 128 bytes of low nibbles, 64 bytes of high bits, 16 scales and d.
// In each half, 64 bytes of nibbles have weights 0 to 63 low and 64 to 127 high.
// Byte l of 32 has the two high bits of weights l, l + 32, l + 64 and l + 96.

const BLOCK_BYTES: u32 = 210u;

// d times a signed byte, as the bits of an f16.
fn signed_step(d: u32, byte: u32) -> u32 {
    let factor = i32(byte << 24u) >> 24u;
    return scaled_half(d, u32(abs(factor))) ^ select(0u, 0x8000u, factor < 0);
}

// The low nibbles of 16 weights in the order of int4.
fn low_words(bytes: vec4<u32>, shift: u32) -> vec2<u32> {
    let nibbles = (bytes >> vec4<u32>(shift)) & vec4<u32>(0x0f0f0f0fu);
    return nibbles.xz | (nibbles.yw << vec2<u32>(4u));
}

// The high bits of 16 weights. The weight 0 is stored as 32.
// With this bit inverted, the six bits are a number in two's complement.
fn high_word(bytes: vec4<u32>, shift: u32) -> u32 {
    let bits = ((bytes >> vec4<u32>(shift)) & vec4<u32>(0x03030303u)) ^ vec4<u32>(0x02020202u);
    return bits.x | (bits.y << 2u) | (bits.z << 4u) | (bits.w << 6u);
}

fn repack(unit: Unit) {
    let block = unit.byte + unit.index / 4u * BLOCK_BYTES;
    let quarter = unit.index % 4u;
    let low = block + quarter / 2u * 64u;
    let high = block + 128u + quarter / 2u * 32u;
    let shift = quarter % 2u * 4u;
    var high_words = vec4<u32>();
    for (var run = 0u; run < 2u; run++) { // unrolled
        let first = low_words(stored_vec4(low + run * 32u), shift);
        let second = low_words(stored_vec4(low + run * 32u + 16u), shift);
        data[data_vec4(unit.place, unit.index * 2u + run)] = vec4<u32>(first, second);
        high_words[run * 2u] = high_word(stored_vec4(high), shift + 2u * run);
        high_words[run * 2u + 1u] = high_word(stored_vec4(high + 16u), shift + 2u * run);
    }
    data[data_vec4(unit.place, LOW_VEC4S + unit.index)] = high_words;

    let d = stored_word(block + 208u) & 0xffffu;
    let factors = stored_word(block + 192u + 4u * quarter);
    for (var pair = 0u; pair < 2u; pair++) { // unrolled
        let bytes = factors >> (16u * pair);
        let steps = signed_step(d, bytes & 0xffu) | (signed_step(d, (bytes >> 8u) & 0xffu) << 16u);
        scales[scale_word(unit.place, unit.index * 2u + pair)] = steps;
        if has_infinite_half(d) || has_infinite_half(steps) {
            note_fault(unit);
        }
    }
}
