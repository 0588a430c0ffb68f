//! needs: vec8

// KV cache in f32, in pairs of neighbouring dims.
alias CachePair = vec2<f32>;
alias CacheVec8 = Vec8;

fn unpack_pair(pair: CachePair) -> vec2<f32> {
    return pair;
}

fn pack_pair(values: vec2<f32>) -> CachePair {
    return values;
}

fn unpack_vec8(vec8: CacheVec8) -> Vec8 {
    return vec8;
}

fn pack_vec8(values: Vec8) -> CacheVec8 {
    return values;
}
