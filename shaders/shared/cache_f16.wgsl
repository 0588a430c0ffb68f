//! needs: vec8

// KV cache in f16, with two neighbouring dims in a word.
alias CachePair = u32;
alias CacheVec8 = vec4<u32>;

fn unpack_pair(pair: CachePair) -> vec2<f32> {
    return unpack2x16float(pair);
}

fn pack_pair(values: vec2<f32>) -> CachePair {
    return pack2x16float(values);
}

fn unpack_vec8(vec8: CacheVec8) -> Vec8 {
    return Vec8(
        vec4<f32>(unpack2x16float(vec8.x), unpack2x16float(vec8.y)),
        vec4<f32>(unpack2x16float(vec8.z), unpack2x16float(vec8.w)),
    );
}

fn pack_vec8(values: Vec8) -> CacheVec8 {
    return vec4<u32>(
        pack2x16float(values.lo.xy),
        pack2x16float(values.lo.zw),
        pack2x16float(values.hi.xy),
        pack2x16float(values.hi.zw),
    );
}
