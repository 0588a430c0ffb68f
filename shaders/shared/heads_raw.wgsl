//! needs: cache, norm_heads, vec8, apply_rope; constants CAPACITY, D, HEADS, K_SOURCE,
//! QKV_STRIDE, SCALE, V_NORM, V_SOURCE, WORKGROUP

// Heads for sdpa_decode, where q, k and v are the results of the projection.
// Every workgroup normalizes and rotates its q and k, and computes its v.
// The workgroup that has the newest key writes k and v to the KV cache.
// No other workgroup reads this key.
// Where several workgroups share a KV head, they write the same values.
// A step with two tokens of one sequence cannot use this kernel.

// [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(1) var<storage, read_write> k_cache: array<CacheVec8>;
// [slots, N_KV, CAPACITY, D / 8]
@group(0) @binding(2) var<storage, read_write> v_cache: array<CacheVec8>;
// q_norm [D / 4], k_norm [D / 4]
@group(0) @binding(6) var<storage, read> head_norms: array<vec4<f32>>;
// [D / 8]: 2^32 times rotations per position
@group(0) @binding(7) var<storage, read> rope_frequencies: array<vec4<u32>>;

// The place in qkv of an item of one of the row's heads.
// An item is four dims of the head's first half. Their rotation partners are half a head later.
fn item_source(row: u32, first_head: u32, kv_head: u32, head: u32, i4: u32) -> u32 {
    let of_kv = select(V_SOURCE, K_SOURCE, head == HEADS) + kv_head * D;
    return (row * QKV_STRIDE + select(of_kv, (first_head + head) * D, head < HEADS)) / 4u + i4;
}

// Stores an item in the form that attention reads. `normed` is the factor of its head's norm.
fn store_item(item: Vec8, normed: f32, head: u32, i4: u32, position: u32) {
    var values = item;
    if head < HEADS {
        values = apply_rope(item, normed * SCALE, 0u, i4, position);
    } else if head == HEADS {
        values = apply_rope(item, normed, VEC4S, i4, position);
    } else if V_NORM {
        values = Vec8(item.lo * normed, item.hi * normed);
    }
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
    if newest {
        let place = (cache + position % CAPACITY) * VEC8S;
        for (var vec8 = local; vec8 < VEC8S; vec8 += WORKGROUP) {
            let k = HEADS * VEC4S + vec8;
            k_cache[place + vec8] = pack_vec8(Vec8(heads[k], heads[k + VEC8S]));
            let v = k + VEC4S;
            v_cache[place + vec8] = pack_vec8(Vec8(heads[v], heads[v + VEC8S]));
        }
        storageBarrier();
    }
}
