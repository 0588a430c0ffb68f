//! needs: octet
// KV cache in f32: two neighbouring dims.
alias CachePair = vec2<f32>;
alias CacheEight = Octet;

fn unpack_pair(pair: CachePair) -> vec2<f32> {
    return pair;
}

fn pack_pair(values: vec2<f32>) -> CachePair {
    return values;
}

fn unpack_eight(eight: CacheEight) -> Octet {
    return eight;
}

fn pack_eight(values: Octet) -> CacheEight {
    return values;
}
