//! needs: cache, reduce, rope_angle, step; constants CAPACITY, D, EPS, K_SOURCE, N_HEADS, N_KV,
//! QKV_STRIDE, V_NORM, V_SOURCE, WORKGROUP

// RMS norm, rotary embedding and KV cache update for one head of one token.
// The rotary embedding is half-split: it rotates the pair of dims i and i + D/2.
//   heads 0..N_HEADS: q, normalized and rotated in place
//   the next N_KV heads: k, normalized and rotated, into the K cache
//   the last N_KV heads: v, into the V cache, with V_NORM normalized without weights
//
// Where V_SOURCE equals K_SOURCE, v is the k projection before its norm.
// No invocation writes to the projections of k and v.

@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;           // [rows, QKV_STRIDE]
// q_norm [D], k_norm [D]
@group(0) @binding(1) var<storage, read> head_norms: array<f32>;
// [D / 2]: 2^32 times rotations per position
@group(0) @binding(2) var<storage, read> rope_frequencies: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;                // [rows]
// [slots, N_KV, CAPACITY, D / 2]
@group(0) @binding(4) var<storage, read_write> k_cache: array<CachePair>;
// [slots, N_KV, CAPACITY, D / 2]
@group(0) @binding(5) var<storage, read_write> v_cache: array<CachePair>;

var<workgroup> head: array<f32, D>;

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let row = rows[group.x];
    let is_q = group.y < N_HEADS;
    let is_k = !is_q && group.y < N_HEADS + N_KV;
    let kv_head = select(group.y - N_HEADS - N_KV, group.y - N_HEADS, is_k);
    let source = group.x * QKV_STRIDE
        + select(select(V_SOURCE + kv_head * D, K_SOURCE + kv_head * D, is_k), group.y * D, is_q);

    var squares = 0.0;
    for (var i = local; i < D; i += WORKGROUP) {
        squares += qkv[source + i] * qkv[source + i];
    }
    let normed = inverseSqrt(group_sum(squares, local) / f32(D) + EPS);
    let factor = select(select(1.0, normed, V_NORM), normed, is_q || is_k);

    for (var i = local; i < D / 2u; i += WORKGROUP) {
        var first = qkv[source + i] * factor;
        var second = qkv[source + i + D / 2u] * factor;
        if is_q || is_k {
            let weight = select(D, 0u, is_q) + i;
            first *= head_norms[weight];
            second *= head_norms[weight + D / 2u];
            // The u32 product drops whole rotations, so the angle is exact at any position.
            let rotation = cos_sin(rope_frequencies[i] * row.position);
            let turned = vec2<f32>(
                first * rotation.x - second * rotation.y,
                second * rotation.x + first * rotation.y,
            );
            first = turned.x;
            second = turned.y;
        }
        head[i] = first;
        head[i + D / 2u] = second;
    }
    workgroupBarrier();

    let place = ((row.slot * N_KV + kv_head) * CAPACITY + row.position % CAPACITY) * (D / 2u);
    for (var i = local; i < D / 2u; i += WORKGROUP) {
        let pair = vec2<f32>(head[2u * i], head[2u * i + 1u]);
        if is_q {
            qkv[source + 2u * i] = pair.x;
            qkv[source + 2u * i + 1u] = pair.y;
        } else if is_k {
            k_cache[place + i] = pack_pair(pair);
        } else {
            v_cache[place + i] = pack_pair(pair);
        }
    }
}
