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

// How an invocation unpacks a word: first its even nibbles or its odd ones.
// Half of the invocations begin with odd ones, so that neighbours write to different banks.
// Two nibbles, 16 bits apart, become the last bits of the f16 number 1024.
// Two odd nibbles in their place become bits of the f16 number 64.
struct Unpacking {
    masks: vec2<u32>,
    numbers: vec2<u32>,
    zeros: vec2<f16>,  // what the number and the zero point add
    first: u32,        // the place of the first four weights
}

var<private> unpacking: Unpacking;

// All invocations call this before they read weights. `size` is the size of the workgroup.
fn prepare_weights(local: u32, size: u32) {
    let zero_point = select(8.0, 0.0, OFFSET);
    let even = vec2<f16>(vec2<f32>(1024.0 + zero_point, 64.0 + zero_point));
    unpacking = Unpacking(
        vec2<u32>(0x000f000fu, 0x00f000f0u), vec2<u32>(0x64006400u, 0x54005400u), even, 0u
    );
    if (local & 8u) != 0u {
        unpacking = Unpacking(
            unpacking.masks.yx, unpacking.numbers.yx, even.yx, 1u
        );
    }
}

fn two(bits: u32, mask: u32, number: u32, zero: f16) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((bits & mask) | number)) - zero;
}

fn scaled(low: vec2<f16>, high: vec2<f16>, scale: f16, offset: f16) -> vec4<f16> {
    if OFFSET {
        return vec4<f16>(low, high) * scale + offset;
    }
    return vec4<f16>(low, high) * scale;
}

fn write_word(at: u32, word: u32, scale: f16, offset: f16) {
    let how = unpacking;
    let other = word >> 8u;
    put_weights(at + how.first, scaled(
        two(word, how.masks.x, how.numbers.x, how.zeros.x),
        two(other, how.masks.x, how.numbers.x, how.zeros.x),
        scale, offset,
    ));
    put_weights(at + 1u - how.first, scaled(
        two(word, how.masks.y, how.numbers.y, how.zeros.y),
        two(other, how.masks.y, how.numbers.y, how.zeros.y),
        scale, offset,
    ));
}

fn write_weights(at: u32, weights: BlockWeights) {
    let scale = f16(weights.scale.x);
    let offset = f16(select(0.0, weights.scale.y, OFFSET));
    write_word(at, weights.quants.x, scale, offset);
    write_word(at + 2u, weights.quants.y, scale, offset);
    write_word(at + 4u, weights.quants.z, scale, offset);
    write_word(at + 6u, weights.quants.w, scale, offset);
}
