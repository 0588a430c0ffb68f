//! needs: cache, norm_heads, octet, turned; constants D, QKV_STRIDE, SCALE
// For sdpa_decode of a layer that attends to another layer's keys and values, which are in the
// cache: q as the product left it, normed and turned by other fragments as heads_raw's.

@group(0) @binding(1) var<storage, read> k_cache: array<CacheEight>;   // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(2) var<storage, read> v_cache: array<CacheEight>;   // [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(6) var<storage, read> head_norms: array<vec4<f32>>; // q_norm [D / 4]
@group(0) @binding(7) var<storage, read> turns: array<vec4<u32>>;      // [D / 8]: 2^32 · turns per position

fn item_source(row: u32, first_head: u32, kv_head: u32, head: u32, four: u32) -> u32 {
    return (row * QKV_STRIDE + (first_head + head) * D) / 4u + four;
}

fn keep_item(item: Octet, normed: f32, head: u32, four: u32, position: u32) {
    let values = turned(item, normed * SCALE, 0u, four, position);
    heads[four_place(head, four)] = values.lo;
    heads[four_place(head, OCTETS + four)] = values.hi;
}

fn prepare(row: u32, position: u32, first_head: u32, kv_head: u32, cache: u32, newest: bool, local: u32) {
    norm_and_turn(row, position, first_head, kv_head, local);
    workgroupBarrier();
}
