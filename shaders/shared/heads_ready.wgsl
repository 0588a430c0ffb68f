//! needs: cache; constants D, HEADS, QKV_STRIDE, SCALE, WORKGROUP

// Heads for sdpa_decode, where rope_kv_update has prepared q and written K and V to the cache.

// [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheVec8>;
// [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheVec8>;

fn prepare(
    row: u32,
    position: u32,
    first_head: u32,
    kv_head: u32,
    cache: u32,
    newest: bool,
    local: u32,
) {
    let base = (row * QKV_STRIDE + first_head * D) / 4u;
    for (var i = local; i < HEADS * VEC4S; i += WORKGROUP) {
        heads[vec4_place(i / VEC4S, i % VEC4S)] = qkv[base + i] * SCALE;
    }
    workgroupBarrier();
}
