//! needs: epilogue, step; constants CAPACITY, D, HEADS, N_HEADS, N_KV, QKV_STRIDE, SCALE, WINDOW;
//! enables f16, wgpu_cooperative_matrix

// sdpa_coop.wgsl for the 8 × 8 cooperative matrices of Metal: scaled dot-product attention.
// It takes consecutive tokens of one sequence, with f16 inputs, f32 sums and online softmax.
//
// A workgroup of eight subgroups has QUERIES queries.
// These are TOKENS tokens for each of HEADS heads that share a KV head.
// Query r is token r % TOKENS of head r / TOKENS.
// For the scores, a subgroup has all queries and 8 keys of a tile.
// For the values, it has all queries and its share of the dims.
// So each key and value is read once, directly from the cache.
//
// Softmax's reference moves as in sdpa_coop.wgsl: only when a score exceeds it by SLACK.
// It then moves to HEADROOM above that score.
//
// Metal loads matrices through pointers to their elements. So they are loaded from arrays of f16.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>; // [rows, QKV_STRIDE / 4], q first
@group(0) @binding(1) var<storage, read> k_cache: array<f16>;   // [slots, N_KV, CAPACITY, D]
@group(0) @binding(2) var<storage, read> v_cache: array<f16>;   // [slots, N_KV, CAPACITY, D]
@group(0) @binding(3) var<storage, read> rows: array<Row>;      // [rows]
@group(0) @binding(4) var<uniform> step: Step;

const WORKGROUP: u32 = 256u;
const QUERIES: u32 = 8192u / D; // 32 or 16
const TOKENS: u32 = QUERIES / HEADS;
const KEYS: u32 = 64u;          // keys of a tile
const OWN_DIMS: u32 = D / 8u;   // dims of a subgroup
const Q_PITCH: u32 = D + 8u;    // padded against bank conflicts, as the pitches below
const S_PITCH: u32 = KEYS + 4u;
const P_PITCH: u32 = KEYS + 8u;
const SHARERS: u32 = WORKGROUP / QUERIES; // invocations that share a query's scores
const OWN_KEYS: u32 = KEYS / SHARERS;
const SLACK: f32 = 14.0;
const HEADROOM: f32 = 6.0;
const LOG2_E: f32 = 1.4426950408889634;
const HIDDEN: f32 = -3.0e38;
var<workgroup> q_tile: array<f16, QUERIES * Q_PITCH>; // [QUERIES, D]
// [QUERIES, KEYS], or a block of sums for each subgroup
var<workgroup> s_tile: array<f32, QUERIES * S_PITCH>;
var<workgroup> p_tile: array<f16, QUERIES * P_PITCH>; // [QUERIES, KEYS]
var<workgroup> factors: array<f32, QUERIES>;
var<workgroup> moved: u32;

fn stage_queries(first_row: u32, first_head: u32, row_count: u32, local: u32) {
    for (var i = local; i < QUERIES * D / 4u; i += WORKGROUP) {
        let query = i / (D / 4u);
        let i4 = i % (D / 4u);
        let row = first_row + min(query % TOKENS, row_count - 1u);
        let q = qkv[row * (QKV_STRIDE / 4u) + (first_head + query / TOKENS) * (D / 4u)
            + i4] * (SCALE * LOG2_E);
        let at = query * Q_PITCH + i4 * 4u;
        q_tile[at] = f16(q.x);
        q_tile[at + 1u] = f16(q.y);
        q_tile[at + 2u] = f16(q.z);
        q_tile[at + 3u] = f16(q.w);
    }
}

// The maximum among the invocations that share a query.
fn shared_max(own: f32) -> f32 {
    var largest = max(own, subgroupShuffleXor(own, 1u));
    largest = max(largest, subgroupShuffleXor(largest, 2u));
    largest = max(largest, subgroupShuffleXor(largest, 4u));
    if SHARERS == 16u {
        largest = max(largest, subgroupShuffleXor(largest, 8u));
    }
    return largest;
}

fn shared_sum(own: f32) -> f32 {
    var sum = own + subgroupShuffleXor(own, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    sum += subgroupShuffleXor(sum, 4u);
    if SHARERS == 16u {
        sum += subgroupShuffleXor(sum, 8u);
    }
    return sum;
}

// A subgroup has four rows of four blocks of 8 queries × 8 dims.
// These functions return the first query and the first dim of block `j` in row `i`.
fn query_of(i: u32) -> u32 {
    return (8u * i) % QUERIES;
}

fn dim_of(i: u32, j: u32) -> u32 {
    return (8u * i / QUERIES) * 32u + 8u * j;
}

// A block of 8 queries × 8 dims, each row times its query's factor.
// `part` is the place of this subgroup's block in s_tile.
fn rescaled(sums: coop_mat8x8<f32, C>, part: u32, query: u32, lane: u32) -> coop_mat8x8<f32, C> {
    coopStoreT(sums, &s_tile[part], 8u);
    workgroupBarrier();
    for (var i = lane; i < 64u; i += 32u) {
        s_tile[part + i] *= factors[query + i / 8u];
    }
    workgroupBarrier();
    return coopLoadT<coop_mat8x8<f32, C>>(&s_tile[part], 8u);
}

// Writes a block of 8 queries × 8 dims times the queries' factors.
// `first` is the first row and the first head of the workgroup.
fn finish(
    sums: coop_mat8x8<f32, C>,
    part: u32,
    query: u32,
    dim: u32,
    first: vec2<u32>,
    local: u32,
) {
    coopStoreT(sums, &s_tile[part], 8u);
    workgroupBarrier();
    let lane = local % 32u;
    let whose = query + (lane % 16u) / 2u;
    let row = first.x + whose % TOKENS;
    if lane < 16u && row < step.rows {
        let at = part + lane * 4u;
        let values = vec4<f32>(s_tile[at], s_tile[at + 1u], s_tile[at + 2u], s_tile[at + 3u]);
        epilogue(
            row,
            ((first.y + whose / TOKENS) * D + dim) / 4u + lane % 2u,
            values * factors[whose],
            local,
        );
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    // The last tokens attend to the most keys, so their workgroups start first.
    let first_row = (groups.x - 1u - group.x) * TOKENS;
    let first_head = group.y * HEADS;
    let row_count = min(TOKENS, step.rows - first_row);
    let first_position = rows[first_row].position;
    let end = first_position + row_count;
    let cache = (rows[first_row].slot * N_KV + first_head / (N_HEADS / N_KV)) * CAPACITY;
    let seen_first = select(
        0u, first_position + 1u - min(WINDOW, first_position + 1u), WINDOW > 0u,
    );
    let first_key = seen_first - seen_first % 8u;

    let part = subgroup * 64u;
    let own_dim = subgroup * OWN_DIMS;
    stage_queries(first_row, first_head, row_count, local);
    // Metal does not define the value of a matrix without a load.
    s_tile[local] = 0.0;
    s_tile[local + 256u] = 0.0;
    if local == 0u {
        moved = 0u;
    }
    workgroupBarrier();
    let zero = coopLoadT<coop_mat8x8<f32, C>>(&s_tile[part], 8u);
    workgroupBarrier();

    // This invocation's query and keys for softmax.
    let query = local / SHARERS;
    let own_key = (local % SHARERS) * OWN_KEYS;
    let position = first_position + min(query % TOKENS, row_count - 1u);
    var reference = HIDDEN;
    var total = 0.0;
    var o00 = zero;
    var o01 = zero;
    var o02 = zero;
    var o03 = zero;
    var o10 = zero;
    var o11 = zero;
    var o12 = zero;
    var o13 = zero;
    var o20 = zero;
    var o21 = zero;
    var o22 = zero;
    var o23 = zero;
    var o30 = zero;
    var o31 = zero;
    var o32 = zero;
    var o33 = zero;
    for (var key = first_key; key < end; key += KEYS) {
        // The length of a ring is a multiple of eight, so eight keys are contiguous also at its
        // end.
        let k_at = (cache + (key + subgroup * 8u) % CAPACITY) * D;
        var s0 = zero;
        var s1 = zero;
        var s2 = zero;
        var s3 = zero;
        for (var d = 0u; d < D; d += 8u) {
            let keys = coopLoad<coop_mat8x8<f16, B>>(&k_cache[k_at + d], D);
            s0 = coopMultiplyAdd(coopLoadT<coop_mat8x8<f16, A>>(&q_tile[d], Q_PITCH), keys, s0);
            s1 = coopMultiplyAdd(
                coopLoadT<coop_mat8x8<f16, A>>(&q_tile[8u * Q_PITCH + d], Q_PITCH), keys, s1,
            );
            if QUERIES == 32u {
                s2 = coopMultiplyAdd(
                    coopLoadT<coop_mat8x8<f16, A>>(&q_tile[16u * Q_PITCH + d], Q_PITCH), keys, s2,
                );
                s3 = coopMultiplyAdd(
                    coopLoadT<coop_mat8x8<f16, A>>(&q_tile[24u * Q_PITCH + d], Q_PITCH), keys, s3,
                );
            }
        }
        coopStoreT(s0, &s_tile[subgroup * 8u], S_PITCH);
        coopStoreT(s1, &s_tile[8u * S_PITCH + subgroup * 8u], S_PITCH);
        if QUERIES == 32u {
            coopStoreT(s2, &s_tile[16u * S_PITCH + subgroup * 8u], S_PITCH);
            coopStoreT(s3, &s_tile[24u * S_PITCH + subgroup * 8u], S_PITCH);
        }
        workgroupBarrier();

        var own: array<f32, OWN_KEYS>;
        var highest = HIDDEN;
        for (var i = 0u; i < OWN_KEYS; i++) {
            let seen = key + own_key + i;
            let past_window = WINDOW > 0u && seen + WINDOW <= position;
            own[i] = select(
                s_tile[query * S_PITCH + own_key + i], HIDDEN, seen > position || past_window,
            );
            highest = max(highest, own[i]);
        }
        highest = shared_max(highest);
        var factor = 1.0;
        if highest > reference + SLACK {
            // Before the first key there are no sums to rescale.
            if reference > HIDDEN {
                factor = exp2(reference - highest - HEADROOM);
                moved = 1u;
            }
            reference = highest + HEADROOM;
            total *= factor;
        }
        factors[query] = factor;
        for (var i = 0u; i < OWN_KEYS; i++) {
            let weight = select(0.0, exp2(own[i] - reference), own[i] > HIDDEN);
            total += weight;
            p_tile[query * P_PITCH + own_key + i] = f16(weight);
        }
        if workgroupUniformLoad(&moved) != 0u {
            o00 = rescaled(o00, part, query_of(0u), lane);
            o01 = rescaled(o01, part, query_of(0u), lane);
            o02 = rescaled(o02, part, query_of(0u), lane);
            o03 = rescaled(o03, part, query_of(0u), lane);
            o10 = rescaled(o10, part, query_of(1u), lane);
            o11 = rescaled(o11, part, query_of(1u), lane);
            o12 = rescaled(o12, part, query_of(1u), lane);
            o13 = rescaled(o13, part, query_of(1u), lane);
            o20 = rescaled(o20, part, query_of(2u), lane);
            o21 = rescaled(o21, part, query_of(2u), lane);
            o22 = rescaled(o22, part, query_of(2u), lane);
            o23 = rescaled(o23, part, query_of(2u), lane);
            o30 = rescaled(o30, part, query_of(3u), lane);
            o31 = rescaled(o31, part, query_of(3u), lane);
            o32 = rescaled(o32, part, query_of(3u), lane);
            o33 = rescaled(o33, part, query_of(3u), lane);
            if local == 0u {
                moved = 0u;
            }
            // The tile of scores held blocks of sums until here.
            workgroupBarrier();
        }
        for (var vec8 = 0u; vec8 < KEYS; vec8 += 8u) {
            let v_at = (cache + (key + vec8) % CAPACITY) * D + own_dim;
            let p0 = coopLoadT<coop_mat8x8<f16, A>>(
                &p_tile[query_of(0u) * P_PITCH + vec8], P_PITCH,
            );
            let p1 = coopLoadT<coop_mat8x8<f16, A>>(
                &p_tile[query_of(1u) * P_PITCH + vec8], P_PITCH,
            );
            let p2 = coopLoadT<coop_mat8x8<f16, A>>(
                &p_tile[query_of(2u) * P_PITCH + vec8], P_PITCH,
            );
            let p3 = coopLoadT<coop_mat8x8<f16, A>>(
                &p_tile[query_of(3u) * P_PITCH + vec8], P_PITCH,
            );
            let v0 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(0u, 0u)], D);
            o00 = coopMultiplyAdd(p0, v0, o00);
            o10 = coopMultiplyAdd(p1, v0, o10);
            let v1 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(0u, 1u)], D);
            o01 = coopMultiplyAdd(p0, v1, o01);
            o11 = coopMultiplyAdd(p1, v1, o11);
            let v2 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(0u, 2u)], D);
            o02 = coopMultiplyAdd(p0, v2, o02);
            o12 = coopMultiplyAdd(p1, v2, o12);
            let v3 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(0u, 3u)], D);
            o03 = coopMultiplyAdd(p0, v3, o03);
            o13 = coopMultiplyAdd(p1, v3, o13);
            // The other two rows have other queries and the same dims, or the same queries and more
            // dims.
            var more0 = v0;
            if QUERIES == 16u {
                more0 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(2u, 0u)], D);
            }
            o20 = coopMultiplyAdd(p2, more0, o20);
            o30 = coopMultiplyAdd(p3, more0, o30);
            var more1 = v1;
            if QUERIES == 16u {
                more1 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(2u, 1u)], D);
            }
            o21 = coopMultiplyAdd(p2, more1, o21);
            o31 = coopMultiplyAdd(p3, more1, o31);
            var more2 = v2;
            if QUERIES == 16u {
                more2 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(2u, 2u)], D);
            }
            o22 = coopMultiplyAdd(p2, more2, o22);
            o32 = coopMultiplyAdd(p3, more2, o32);
            var more3 = v3;
            if QUERIES == 16u {
                more3 = coopLoadT<coop_mat8x8<f16, B>>(&v_cache[v_at + dim_of(2u, 3u)], D);
            }
            o23 = coopMultiplyAdd(p2, more3, o23);
            o33 = coopMultiplyAdd(p3, more3, o33);
        }
    }

    total = shared_sum(total);
    // The tile of scores becomes blocks of sums, and other invocations may still read factors.
    workgroupBarrier();
    factors[query] = 1.0 / total;
    let first = vec2<u32>(first_row, first_head);
    finish(o00, part, query_of(0u), own_dim + dim_of(0u, 0u), first, local);
    finish(o01, part, query_of(0u), own_dim + dim_of(0u, 1u), first, local);
    finish(o02, part, query_of(0u), own_dim + dim_of(0u, 2u), first, local);
    finish(o03, part, query_of(0u), own_dim + dim_of(0u, 3u), first, local);
    finish(o10, part, query_of(1u), own_dim + dim_of(1u, 0u), first, local);
    finish(o11, part, query_of(1u), own_dim + dim_of(1u, 1u), first, local);
    finish(o12, part, query_of(1u), own_dim + dim_of(1u, 2u), first, local);
    finish(o13, part, query_of(1u), own_dim + dim_of(1u, 3u), first, local);
    finish(o20, part, query_of(2u), own_dim + dim_of(2u, 0u), first, local);
    finish(o21, part, query_of(2u), own_dim + dim_of(2u, 1u), first, local);
    finish(o22, part, query_of(2u), own_dim + dim_of(2u, 2u), first, local);
    finish(o23, part, query_of(2u), own_dim + dim_of(2u, 3u), first, local);
    finish(o30, part, query_of(3u), own_dim + dim_of(3u, 0u), first, local);
    finish(o31, part, query_of(3u), own_dim + dim_of(3u, 1u), first, local);
    finish(o32, part, query_of(3u), own_dim + dim_of(3u, 2u), first, local);
    finish(o33, part, query_of(3u), own_dim + dim_of(3u, 3u), first, local);
}
