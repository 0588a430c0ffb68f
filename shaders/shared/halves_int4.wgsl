//! needs: scales, weight_layout; constants GROUP, OFFSET

// 32 int4 weights of a row as f16, in the column order of epilogue_f16.
// The kernel's put_weights writes four weights to its tile.
struct BlockWeights {
    quants: vec4<u32>,
    scale: vec2<f32>,
}

fn load_weights(row: u32, block: u32) -> BlockWeights {
    return BlockWeights(data[data_vec4(row, block)], scale_of(row, block * 32u / GROUP));
}

// Two nibbles, 16 bits apart, become the last bits of the f16 number 1024.
fn two(bits: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((bits & 0x000f000fu) | 0x64006400u)) - f16(select(
        1032.0, 1024.0, OFFSET,
    ));
}

fn write_word(at: u32, word: u32, scale: f16, offset: f16) {
    put_weights(at, vec4<f16>(two(word), two(word >> 8u)) * scale + offset);
    put_weights(at + 1u, vec4<f16>(two(word >> 4u), two(word >> 12u)) * scale + offset);
}

fn write_weights(at: u32, weights: BlockWeights) {
    let scale = f16(weights.scale.x);
    let offset = f16(select(0.0, weights.scale.y, OFFSET));
    write_word(at, weights.quants.x, scale, offset);
    write_word(at + 2u, weights.quants.y, scale, offset);
    write_word(at + 4u, weights.quants.z, scale, offset);
    write_word(at + 6u, weights.quants.w, scale, offset);
}

// All invocations call this before they read weights. `size` is the size of the workgroup.
fn prepare_weights(local: u32, size: u32) {}
