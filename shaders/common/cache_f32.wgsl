// KV cache in f32: two neighbouring dims together.
alias CachePair = vec2<f32>;

fn unpack_pair(pair: CachePair) -> vec2<f32> {
    return pair;
}

fn pack_pair(values: vec2<f32>) -> CachePair {
    return values;
}
