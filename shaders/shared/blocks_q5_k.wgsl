//! needs: fifth_words, half_bits, stored_rows, weight_layout; constants BLOCK_BYTES

// Q5_K: d and dmin, 12 bytes of scales and minima as in Q4_K, 32 bytes of fifth bits, 256 nibbles.
// Bit g of each of the 32 bytes is the fifth bit of a weight of group g.
// Of 32 bytes of nibbles, the low ones are one group and the high ones the next.

fn group_step(row_byte: u32, group: u32) -> u32 {
    let head = stored_vec4(row_byte + group / 8u * BLOCK_BYTES);
    if has_infinite_half(head.x) {
        return HALF_INFINITY;
    }
    // Three bytes for group % 4, first of scales, second of minima.
    // Each has 6 bits of its own and the upper two bits of group + 4.
    // The third has the lower four bits of scale and minimum of group + 4.
    let bytes = head.yzw >> vec3<u32>(8u * (group % 4u));
    let is_late = group % 8u >= 4u;
    let scale = select(bytes.x & 63u, (bytes.z & 15u) | ((bytes.x >> 2u) & 48u), is_late);
    let minimum = select(bytes.y & 63u, ((bytes.z >> 4u) & 15u) | ((bytes.y >> 2u) & 48u), is_late);
    return scaled_half(
        head.x & 0xffffu, scale,
    ) | ((scaled_half(head.x >> 16u, minimum) ^ 0x8000u) << 16u);
}

fn write_group(unit: Unit, group: u32) {
    let block = unit.byte + group / 8u * BLOCK_BYTES;
    let at = block + 48u + group % 8u / 2u * 32u;
    let shift = vec4<u32>(4u * (group % 2u));
    let first = (stored_vec4(at) >> shift) & vec4<u32>(0x0f0f0f0fu);
    let second = (stored_vec4(at + 16u) >> shift) & vec4<u32>(0x0f0f0f0fu);
    let words = vec4<u32>(
        first.xz | (first.yw << vec2<u32>(4u)), second.xz | (second.yw << vec2<u32>(4u)),
    );
    data[data_vec4(unit.place, group)] = words;
    var fifths = 0u;
    for (var k = 0u; k < 8u; k++) {
        fifths |= ((stored_word(block + 16u + 4u * k) >> (group % 8u)) & 0x01010101u) << k;
    }
    write_fifths(unit, group, fifths);
}
