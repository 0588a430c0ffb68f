// 32 int8 weights of a row as f16, in the column order of emit_halves. Groups of 16 have a scale for each half.
struct BlockWeights {
    lo: vec4<u32>,
    hi: vec4<u32>,
    scale: vec2<f32>, // scale and offset; the scales of both halves where groups are of 16
}

fn load_weights(row: u32, block: u32) -> BlockWeights {
    var scale = scale_of(row, block);
    if GROUP == 16u {
        scale = vec2<f32>(scale_of(row, block * 2u).x, scale_of(row, block * 2u + 1u).x);
    }
    return BlockWeights(data[data_four(row, block * 2u)], data[data_four(row, block * 2u + 1u)], scale);
}

fn write_half(at: u32, words: vec4<u32>, scale: f16, offset: f16) {
    w_tile[at] = vec4<f16>(vec4<f32>(unpack4xI8(words.x)).xzyw) * scale + offset;
    w_tile[at + 1u] = vec4<f16>(vec4<f32>(unpack4xI8(words.y)).xzyw) * scale + offset;
    w_tile[at + 2u] = vec4<f16>(vec4<f32>(unpack4xI8(words.z)).xzyw) * scale + offset;
    w_tile[at + 3u] = vec4<f16>(vec4<f32>(unpack4xI8(words.w)).xzyw) * scale + offset;
}

fn write_weights(at: u32, weights: BlockWeights) {
    let offset = f16(select(0.0, weights.scale.y, OFFSET));
    write_half(at, weights.lo, f16(weights.scale.x), offset);
    write_half(at + 4u, weights.hi, f16(select(weights.scale.x, weights.scale.y, GROUP == 16u)), offset);
}
