// Q4_K: d and dmin, 12 bytes of scales and minima, 256 nibbles: 32 low ones of a group, then the high ones of the next.

fn group_step(row_byte: u32, group: u32) -> u32 {
    let block = row_byte + group / 8u * BLOCK_BYTES;
    let d = stored_word(block);
    if has_infinite_half(d) {
        return HALF_INFINITY;
    }
    // Bytes of group % 4: 6 bits and the upper 2 of the scale four groups on; the same of the minimum; lower bits of both.
    let shift = 8u * (group % 4u);
    let sc = stored_word(block + 4u) >> shift;
    let m = stored_word(block + 8u) >> shift;
    let both = stored_word(block + 12u) >> shift;
    let is_late = group % 8u >= 4u;
    let scale = select(sc & 63u, (both & 15u) | ((sc >> 2u) & 48u), is_late);
    let minimum = select(m & 63u, ((both >> 4u) & 15u) | ((m >> 2u) & 48u), is_late);
    return scaled_half(d & 0xffffu, scale) | ((scaled_half(d >> 16u, minimum) ^ 0x8000u) << 16u);
}

fn group_four(row_byte: u32, group: u32, four: u32) -> vec4<u32> {
    let at = row_byte + group / 8u * BLOCK_BYTES + 16u + group % 8u / 2u * 32u;
    let shift = vec4<u32>(4u * (group % 2u));
    let first = (stored_four(at) >> shift) & vec4<u32>(0x0f0f0f0fu);
    let second = (stored_four(at + 16u) >> shift) & vec4<u32>(0x0f0f0f0fu);
    return vec4<u32>(first.xz | (first.yw << vec2<u32>(4u)), second.xz | (second.yw << vec2<u32>(4u)));
}
