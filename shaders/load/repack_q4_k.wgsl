//! needs: half_bits, stored_rows, weight_layout

// Converts Q4_K to int4, with the scales as the block stores them.
// An invocation has two groups of 32 weights, a quarter of a block.
// A block is d and dmin, 12 bytes of scales and minima, then 256 nibbles.
// Of 32 bytes of nibbles, the low ones are one group and the high ones the next.

const BLOCK_BYTES: u32 = 144u;

// The low nibbles of four bytes, packed into 16 bits.
fn nibbles(bytes: u32) -> u32 {
    let pairs = (bytes | (bytes >> 4u)) & 0x00ff00ffu;
    return (pairs | (pairs >> 8u)) & 0xffffu;
}

// The twin of quant::q4_k::words.
fn scale_words(block: u32) -> vec4<u32> {
    let head = stored_vec4(block);
    // The first bytes are for groups 0 to 3, first scales, then minima.
    // Each has 6 bits of its own and the upper two bits of group + 4.
    // The last bytes are for groups 4 to 7: the lower four bits of the scale, then of the minimum.
    let low = vec2<u32>(0x0f0f0f0fu);
    let early = head.yz & low;
    let late = vec2<u32>(head.w, head.w >> 4u) & low;
    let first = ((head.y >> 4u) & 0x03030303u) | ((head.z >> 2u) & 0x0c0c0c0cu);
    let second = ((head.y >> 6u) & 0x03030303u) | ((head.z >> 4u) & 0x0c0c0c0cu);
    return vec4<u32>(
        head.x,
        nibbles(early.x) | (nibbles(late.x) << 16u),
        nibbles(early.y) | (nibbles(late.y) << 16u),
        nibbles(first) | (nibbles(second) << 16u),
    );
}

// Whether a group's scale or minimum is too large for f16.
fn is_beyond(words: vec4<u32>, group: u32) -> bool {
    let shift = 4u * group;
    let upper = words.w >> shift;
    let scale = ((words.y >> shift) & 15u) | ((upper << 4u) & 48u);
    let minimum = ((words.z >> shift) & 15u) | ((upper << 2u) & 48u);
    return has_infinite_half(scaled_half(
        words.x & 0xffffu, scale,
    ) | (scaled_half(words.x >> 16u, minimum) << 16u));
}

// Four words of data from a group's low or high nibbles.
fn group_vec4(bytes: u32, shift: u32) -> vec4<u32> {
    let first = (stored_vec4(bytes) >> vec4<u32>(shift)) & vec4<u32>(0x0f0f0f0fu);
    let second = (stored_vec4(bytes + 16u) >> vec4<u32>(shift)) & vec4<u32>(0x0f0f0f0fu);
    return vec4<u32>(
        first.xz | (first.yw << vec2<u32>(4u)), second.xz | (second.yw << vec2<u32>(4u)),
    );
}

fn repack(unit: Unit) {
    let block = unit.byte + unit.index / 4u * BLOCK_BYTES;
    let quarter = unit.index % 4u;
    for (var high = 0u; high < 2u; high++) { // unrolled
        let i4 = group_vec4(block + 16u + 32u * quarter, 4u * high);
        data[data_vec4(unit.place, 2u * unit.index + high)] = i4;
    }
    let words = scale_words(block);
    scales[4u * scale_vec4(unit.place, unit.index / 4u) + quarter] = words[quarter];
    if has_infinite_half(words.x) || is_beyond(words, 2u * quarter) || is_beyond(
        words, 2u * quarter + 1u,
    ) {
        note_fault(unit);
    }
}
