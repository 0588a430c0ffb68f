//! needs: octet
// KV cache in f16: two neighbouring dims in a word.
alias CachePair = u32;
alias CacheEight = vec4<u32>;

fn unpack_pair(pair: CachePair) -> vec2<f32> {
    return unpack2x16float(pair);
}

fn pack_pair(values: vec2<f32>) -> CachePair {
    return pack2x16float(values);
}

fn unpack_eight(eight: CacheEight) -> Octet {
    return Octet(
        vec4<f32>(unpack2x16float(eight.x), unpack2x16float(eight.y)),
        vec4<f32>(unpack2x16float(eight.z), unpack2x16float(eight.w)),
    );
}

fn pack_eight(values: Octet) -> CacheEight {
    return vec4<u32>(
        pack2x16float(values.lo.xy),
        pack2x16float(values.lo.zw),
        pack2x16float(values.hi.xy),
        pack2x16float(values.hi.zw),
    );
}
