//! needs: bytes, iq4, weight_layout

// 32 IQ4 weights of a row. Their nibbles are in the order of int4 and choose levels.
struct Stored {
    quants: vec4<u32>,
}

fn load_stored(row: u32, block: u32) -> Stored {
    return Stored(data[data_vec4(row, block)]);
}

// The levels of a byte's two nibbles, in bytes 0 and 2.
// One read gives two weights, while the function `levels` takes a dozen operations.
var<workgroup> level_pairs: array<u32, 256>;

fn prepare_weights(local: u32, size: u32) {
    for (var i = local; i < 256u; i += size) {
        level_pairs[i] = levels((i & 15u) | ((i >> 4u) << 16u)) & 0x00ff00ffu;
    }
    workgroupBarrier();
}

// The levels of weights 0..4 and 4..8 of a word.
fn word_levels(word: u32) -> vec2<u32> {
    let a = level_pairs[word & 255u] | (level_pairs[(word >> 8u) & 255u] << 8u);
    let b = level_pairs[(word >> 16u) & 255u] | (level_pairs[word >> 24u] << 8u);
    return vec2<u32>((a & 0xffffu) | (b << 16u), (a >> 16u) | (b & 0xffff0000u));
}

fn to_bytes(stored: Stored) -> Bytes {
    return Bytes(
        vec4<u32>(word_levels(stored.quants.x), word_levels(stored.quants.y)),
        vec4<u32>(word_levels(stored.quants.z), word_levels(stored.quants.w)),
    );
}

const INT8_STEP: f32 = 1.0;
