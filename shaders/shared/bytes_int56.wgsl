//! needs: bytes, int56, weight_layout; constants BITS, LOW_WORDS

// 32 weights of a row, with 5 or 6 bits each.
struct Stored {
    low: vec4<u32>,
    high: vec2<u32>, // both words of 6-bit weights, or the word of 5-bit weights twice
}

fn load_stored(row: u32, block: u32) -> Stored {
    let low = data[data_vec4(row, block)];
    if BITS == 6u {
        let i4 = data_vec4(row, LOW_WORDS / 4u + block / 2u);
        let at = (block % 2u) * 2u;
        return Stored(low, vec2<u32>(data[i4][at], data[i4][at + 1u]));
    }
    return Stored(low, vec2<u32>(data[data_vec4(row, LOW_WORDS / 4u + block / 4u)][block % 4u]));
}

// The left shift for the high bits of the even quads of a word.
const UP: vec4<u32> = vec4<u32>(
    SHIFT + 4u,
    SHIFT + 4u - HIGH_BITS * 2u,
    SHIFT + 4u - HIGH_BITS * (4u % QUADS),
    SHIFT + 4u - HIGH_BITS * (6u % QUADS),
);

fn to_bytes(stored: Stored) -> Bytes {
    let high = stored.high.xxyy;
    let even = ((stored.low << vec4<u32>(SHIFT)) & vec4<u32>(LOW_MASK))
        | ((high << UP) & vec4<u32>(HIGH_MASK));
    let odd = ((stored.low >> vec4<u32>(4u - SHIFT)) & vec4<u32>(LOW_MASK))
        | (((high >> vec4<u32>(HIGH_BITS)) << UP) & vec4<u32>(HIGH_MASK));
    return Bytes(vec4<u32>(even.x, odd.x, even.y, odd.y), vec4<u32>(even.z, odd.z, even.w, odd.w));
}

// All invocations call this before they read weights. `size` is the size of the workgroup.
fn prepare_weights(local: u32, size: u32) {}
