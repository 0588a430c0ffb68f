// KV cache in f16: two neighbouring dims in a word.
alias CachePair = u32;

fn unpack_pair(pair: CachePair) -> vec2<f32> {
    return unpack2x16float(pair);
}

fn pack_pair(values: vec2<f32>) -> CachePair {
    return pack2x16float(values);
}
