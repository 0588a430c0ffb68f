//! needs: cache, norm_heads, vec8, apply_rope; constants D, QKV_STRIDE, SCALE

// Query heads for sdpa_decode in a layer that shares another layer's keys and values.
// Those are in the KV cache.
// q is the result of the projection. As in heads_raw, other fragments normalize and rotate it.

// [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(1) var<storage, read> k_cache: array<CacheVec8>;
// [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheVec8>;
@group(0) @binding(6) var<storage, read> head_norms: array<vec4<f32>>; // q_norm [D / 4]
// [D / 8]: 2^32 times rotations per position
@group(0) @binding(7) var<storage, read> rope_frequencies: array<vec4<u32>>;

fn item_source(row: u32, first_head: u32, kv_head: u32, head: u32, i4: u32) -> u32 {
    return (row * QKV_STRIDE + (first_head + head) * D) / 4u + i4;
}

fn store_item(item: Vec8, normed: f32, head: u32, i4: u32, position: u32) {
    let values = apply_rope(item, normed * SCALE, 0u, i4, position);
    heads[vec4_place(head, i4)] = values.lo;
    heads[vec4_place(head, VEC8S + i4)] = values.hi;
}

fn prepare(
    row: u32,
    position: u32,
    first_head: u32,
    kv_head: u32,
    cache: u32,
    newest: bool,
    local: u32,
) {
    norm_and_rope(row, position, first_head, kv_head, local);
    workgroupBarrier();
}
