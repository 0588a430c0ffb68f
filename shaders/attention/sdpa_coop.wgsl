//! needs: epilogue, step; constants CAPACITY, D, HEADS, N_HEADS, N_KV, QKV_STRIDE, SCALE, WINDOW;
//! enables f16, wgpu_cooperative_matrix

// Scaled dot-product attention for consecutive tokens of one sequence, on cooperative matrices.
// Inputs are f16 and sums f32. Softmax is computed online ("flash attention", Dao et al. 2022).
//
// A workgroup has QUERIES queries: TOKENS tokens for each of HEADS heads that share a KV head.
// So each key and value is read once for all of them.
// Query r is token r % TOKENS of head r / TOKENS.
// A subgroup computes the scores of 16 queries over 256 dims and keeps those queries in registers.
// For the values it has 64 queries and 64 dims.
// The next tiles of keys and values are loaded while the current ones are used.
//
// Softmax subtracts a reference, which must be near the largest score so far.
// To move the reference, the kernel must rescale the sums.
// That is expensive, as the layout of cooperative matrices is not known.
// So the reference moves only when a score exceeds it by SLACK, which f16 weights permit.
// It then moves to HEADROOM above that score.
//
// Buffers that are only read are declared read_write too, for the reason in matmul_coop.wgsl.
//
// Variables in workgroup memory have sizes that are multiples of 16 bytes.
// Drivers load matrices 16 bytes at a time.

// [rows, QKV_STRIDE / 4], q first
@group(0) @binding(0) var<storage, read_write> qkv: array<vec4<f32>>;
// [slots, N_KV, CAPACITY, D / 4]
@group(0) @binding(1) var<storage, read_write> k_cache: array<vec4<f16>>;
// [slots, N_KV, CAPACITY, D / 4]
@group(0) @binding(2) var<storage, read_write> v_cache: array<vec4<f16>>;
@group(0) @binding(3) var<storage, read_write> rows: array<Row>;           // [rows]
@group(0) @binding(4) var<uniform> step: Step;

const WORKGROUP: u32 = 256u;
const QUERIES: u32 = 32768u / D;    // 128 or 64
const TOKENS: u32 = QUERIES / HEADS;
const HALVES: u32 = D / 256u;       // subgroups that share the dims of a score
const KEYS: u32 = 16u;              // keys of a tile
const VEC4S: u32 = D / 4u;
const Q_PITCH: u32 = 18u;           // vec4s for 64 dims, padded against bank conflicts
const KV_PITCH: u32 = VEC4S + 2u;   // in vec4s
const S_PITCH: u32 = KEYS + 4u;
const P_PITCH: u32 = KEYS / 4u + 2u; // in vec4s
const SHARERS: u32 = WORKGROUP / QUERIES; // invocations that share a query's scores
const OWN_KEYS: u32 = KEYS / SHARERS;
const SLACK: f32 = 14.0;
const HEADROOM: f32 = 6.0;
const LOG2_E: f32 = 1.4426950408889634;
const HIDDEN: f32 = -3.0e38;
var<workgroup> k_tile: array<vec4<f16>, HALVES * QUERIES * Q_PITCH>; // queries, then [KEYS, D]
var<workgroup> v_tile: array<vec4<f16>, KEYS * KV_PITCH>;            // [KEYS, D]
// [HALVES, QUERIES, KEYS], or temporary blocks of sums
var<workgroup> s_tile: array<f32, HALVES * QUERIES * S_PITCH>;
var<workgroup> p_tile: array<vec4<f16>, QUERIES * P_PITCH>;          // [QUERIES, KEYS]
var<workgroup> factors: array<f32, QUERIES>;
var<workgroup> moved: array<u32, 4>;                                 // for 16 queries of each 64

// The vec4s of a tile that an invocation loads.
struct Held {
    a: vec4<f16>,
    b: vec4<f16>,
    c: vec4<f16>,
    d: vec4<f16>,
}

fn fetch_k(at: u32) -> Held {
    return Held(k_cache[at], k_cache[at + 256u], k_cache[at + 512u], k_cache[at + 768u]);
}

fn put_k(at: u32, held: Held) {
    k_tile[place(at)] = held.a;
    k_tile[place(at + 256u)] = held.b;
    k_tile[place(at + 512u)] = held.c;
    k_tile[place(at + 768u)] = held.d;
}

fn fetch_v(at: u32) -> Held {
    return Held(v_cache[at], v_cache[at + 256u], v_cache[at + 512u], v_cache[at + 768u]);
}

fn put_v(at: u32, held: Held) {
    v_tile[place(at)] = held.a;
    v_tile[place(at + 256u)] = held.b;
    v_tile[place(at + 512u)] = held.c;
    v_tile[place(at + 768u)] = held.d;
}

// The place of vec4 `i` in a tile.
fn place(i: u32) -> u32 {
    return (i / VEC4S) * KV_PITCH + i % VEC4S;
}

// Writes 64 dims of all queries to the tile, from `dims` on in each 256.
fn stage_queries(first_row: u32, first_head: u32, dims: u32, row_count: u32, local: u32) {
    for (var i = local; i < HALVES * QUERIES * 16u; i += WORKGROUP) {
        let query = (i / 16u) % QUERIES;
        let dim = (i / (16u * QUERIES)) * 256u + dims;
        let row = first_row + min(query % TOKENS, row_count - 1u);
        let at = row * (QKV_STRIDE / 4u) + ((first_head + query / TOKENS) * D + dim) / 4u + i % 16u;
        k_tile[(i / 16u) * Q_PITCH + i % 16u] = vec4<f16>(qkv[at] * (SCALE * LOG2_E));
    }
}

// A block of 16 queries × 16 dims, each row times its query's factor. `at` is the place of this
// subgroup's temporary block.
fn rescaled(
    sums: coop_mat16x16<f32, C>,
    at: u32,
    first_query: u32,
    lane: u32,
) -> coop_mat16x16<f32, C> {
    coopStoreT(sums, &s_tile[at], 16u);
    workgroupBarrier();
    for (var i = lane; i < 256u; i += 32u) {
        s_tile[at + i] *= factors[first_query + i / 16u];
    }
    workgroupBarrier();
    return coopLoadT<coop_mat16x16<f32, C>>(&s_tile[at], 16u);
}

// Writes a block of 16 queries × 16 dims times the queries' factors.
// `first` is the first row and the first head of the workgroup.
fn finish(
    sums: coop_mat16x16<f32, C>,
    at: u32,
    query: u32,
    dim: u32,
    first: vec2<u32>,
    local: u32,
) {
    coopStoreT(sums, &s_tile[at], 16u);
    workgroupBarrier();
    for (var i = local % 32u; i < 64u; i += 32u) {
        let whose = query + i / 4u;
        let row = first.x + whose % TOKENS;
        let value = at + i * 4u;
        let values = vec4<f32>(
            s_tile[value], s_tile[value + 1u], s_tile[value + 2u], s_tile[value + 3u],
        );
        if row < step.rows {
            epilogue(
                row,
                ((first.y + whose / TOKENS) * D + dim) / 4u + i % 4u,
                values * factors[whose],
                local,
            );
        }
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
    let first_key = seen_first - seen_first % KEYS;

    // This subgroup's 16 queries and 256 dims for the scores.
    let s_query = (subgroup % (QUERIES / 16u)) * 16u;
    let half = subgroup / (QUERIES / 16u);
    let q_at = (half * QUERIES + s_query) * Q_PITCH;
    let s_at = (half * QUERIES + s_query) * S_PITCH;
    // Its 64 queries and 64 dims for the values.
    let dim = (subgroup % (D / 64u)) * 64u;
    let o_query = (subgroup / (D / 64u)) * 64u;
    let scratch = subgroup * 256u;
    stage_queries(first_row, first_head, 0u, row_count, local);
    workgroupBarrier();
    let q0 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 0u], Q_PITCH);
    let q1 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 4u], Q_PITCH);
    let q2 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 8u], Q_PITCH);
    let q3 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 12u], Q_PITCH);
    workgroupBarrier();
    stage_queries(first_row, first_head, 64u, row_count, local);
    workgroupBarrier();
    let q4 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 0u], Q_PITCH);
    let q5 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 4u], Q_PITCH);
    let q6 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 8u], Q_PITCH);
    let q7 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 12u], Q_PITCH);
    workgroupBarrier();
    stage_queries(first_row, first_head, 128u, row_count, local);
    workgroupBarrier();
    let q8 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 0u], Q_PITCH);
    let q9 = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 4u], Q_PITCH);
    let qa = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 8u], Q_PITCH);
    let qb = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 12u], Q_PITCH);
    workgroupBarrier();
    stage_queries(first_row, first_head, 192u, row_count, local);
    workgroupBarrier();
    let qc = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 0u], Q_PITCH);
    let qd = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 4u], Q_PITCH);
    let qe = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 8u], Q_PITCH);
    let qf = coopLoadT<coop_mat16x16<f16, A>>(&k_tile[q_at + 12u], Q_PITCH);
    workgroupBarrier();

    // This invocation's query and keys for softmax.
    let query = local / SHARERS;
    let own_key = (local % SHARERS) * OWN_KEYS;
    let position = first_position + min(query % TOKENS, row_count - 1u);
    var reference = HIDDEN;
    var total = 0.0;
    var o00 = coop_mat16x16<f32, C>();
    var o01 = coop_mat16x16<f32, C>();
    var o02 = coop_mat16x16<f32, C>();
    var o03 = coop_mat16x16<f32, C>();
    var o10 = coop_mat16x16<f32, C>();
    var o11 = coop_mat16x16<f32, C>();
    var o12 = coop_mat16x16<f32, C>();
    var o13 = coop_mat16x16<f32, C>();
    var o20 = coop_mat16x16<f32, C>();
    var o21 = coop_mat16x16<f32, C>();
    var o22 = coop_mat16x16<f32, C>();
    var o23 = coop_mat16x16<f32, C>();
    var o30 = coop_mat16x16<f32, C>();
    var o31 = coop_mat16x16<f32, C>();
    var o32 = coop_mat16x16<f32, C>();
    var o33 = coop_mat16x16<f32, C>();
    if local < 4u {
        moved[local] = 0u;
    }
    let first_at = (cache + first_key % CAPACITY) * VEC4S + local;
    var k_low = fetch_k(first_at);
    var k_high = k_low;
    if D == 512u {
        k_high = fetch_k(first_at + 1024u);
    }
    for (var key = first_key; key < end; key += KEYS) {
        let at = (cache + key % CAPACITY) * VEC4S + local;
        put_k(local, k_low);
        if D == 512u {
            put_k(local + 1024u, k_high);
        }
        workgroupBarrier();
        let v_low = fetch_v(at);
        var v_high = v_low;
        if D == 512u {
            v_high = fetch_v(at + 1024u);
        }
        let k_at = half * 64u;
        var scores = coop_mat16x16<f32, C>();
        scores = coopMultiplyAdd(
            q0, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 0u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q1, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 4u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q2, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 8u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q3, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 12u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q4, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 16u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q5, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 20u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q6, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 24u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q7, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 28u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q8, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 32u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            q9, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 36u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            qa, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 40u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            qb, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 44u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            qc, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 48u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            qd, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 52u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            qe, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 56u], KV_PITCH), scores,
        );
        scores = coopMultiplyAdd(
            qf, coopLoad<coop_mat16x16<f16, B>>(&k_tile[k_at + 60u], KV_PITCH), scores,
        );
        coopStoreT(scores, &s_tile[s_at], S_PITCH);
        workgroupBarrier();

        var own: array<f32, OWN_KEYS>;
        var highest = HIDDEN;
        for (var i = 0u; i < OWN_KEYS; i++) {
            var score = s_tile[query * S_PITCH + own_key + i];
            if HALVES == 2u {
                score += s_tile[(QUERIES + query) * S_PITCH + own_key + i];
            }
            let seen = key + own_key + i;
            let past_window = WINDOW > 0u && seen + WINDOW <= position;
            own[i] = select(score, HIDDEN, seen > position || past_window);
            highest = max(highest, own[i]);
        }
        highest = max(highest, subgroupShuffleXor(highest, 1u));
        if SHARERS == 4u {
            highest = max(highest, subgroupShuffleXor(highest, 2u));
        }
        var factor = 1.0;
        if highest > reference + SLACK {
            // Before the first key there are no sums to rescale.
            if reference > HIDDEN {
                factor = exp2(reference - highest - HEADROOM);
                moved[(query / 16u) % 4u] = 1u;
            }
            reference = highest + HEADROOM;
            total *= factor;
        }
        factors[query] = factor;
        for (var i = 0u; i < OWN_KEYS; i += 4u) {
            let scores = vec4<f32>(own[i], own[i + 1u], own[i + 2u], own[i + 3u]);
            let weights = select(vec4<f32>(), exp2(scores - reference), scores > vec4<f32>(HIDDEN));
            total += weights.x + weights.y + weights.z + weights.w;
            p_tile[query * P_PITCH + (own_key + i) / 4u] = vec4<f16>(weights);
        }
        put_v(local, v_low);
        if D == 512u {
            put_v(local + 1024u, v_high);
        }
        // The last iteration loads its own keys again, which avoids a branch.
        let next = select(key, key + KEYS, key + KEYS < end);
        let next_at = (cache + next % CAPACITY) * VEC4S + local;
        k_low = fetch_k(next_at);
        if D == 512u {
            k_high = fetch_k(next_at + 1024u);
        }
        let moves = workgroupUniformLoad(&moved);
        // With 256 dims separate branches are faster, with 512 dims one branch. Compilers decide
        // this.
        if (moves[0] | moves[1] | moves[2] | moves[3]) != 0u {
            if HALVES == 2u || moves[0] != 0u {
                o00 = rescaled(o00, scratch, o_query + 0u, lane);
                o01 = rescaled(o01, scratch, o_query + 0u, lane);
                o02 = rescaled(o02, scratch, o_query + 0u, lane);
                o03 = rescaled(o03, scratch, o_query + 0u, lane);
            }
            if HALVES == 2u || moves[1] != 0u {
                o10 = rescaled(o10, scratch, o_query + 16u, lane);
                o11 = rescaled(o11, scratch, o_query + 16u, lane);
                o12 = rescaled(o12, scratch, o_query + 16u, lane);
                o13 = rescaled(o13, scratch, o_query + 16u, lane);
            }
            if HALVES == 2u || moves[2] != 0u {
                o20 = rescaled(o20, scratch, o_query + 32u, lane);
                o21 = rescaled(o21, scratch, o_query + 32u, lane);
                o22 = rescaled(o22, scratch, o_query + 32u, lane);
                o23 = rescaled(o23, scratch, o_query + 32u, lane);
            }
            if HALVES == 2u || moves[3] != 0u {
                o30 = rescaled(o30, scratch, o_query + 48u, lane);
                o31 = rescaled(o31, scratch, o_query + 48u, lane);
                o32 = rescaled(o32, scratch, o_query + 48u, lane);
                o33 = rescaled(o33, scratch, o_query + 48u, lane);
            }
            if local < 4u {
                moved[local] = 0u;
            }
            // The tile of scores held temporary blocks until here.
            workgroupBarrier();
        }
        let p_at = o_query * P_PITCH;
        let p0 = coopLoadT<coop_mat16x16<f16, A>>(&p_tile[p_at + 0u * P_PITCH], P_PITCH);
        let p1 = coopLoadT<coop_mat16x16<f16, A>>(&p_tile[p_at + 16u * P_PITCH], P_PITCH);
        let p2 = coopLoadT<coop_mat16x16<f16, A>>(&p_tile[p_at + 32u * P_PITCH], P_PITCH);
        let p3 = coopLoadT<coop_mat16x16<f16, A>>(&p_tile[p_at + 48u * P_PITCH], P_PITCH);
        let v0 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[dim / 4u + 0u], KV_PITCH);
        o00 = coopMultiplyAdd(p0, v0, o00);
        o10 = coopMultiplyAdd(p1, v0, o10);
        o20 = coopMultiplyAdd(p2, v0, o20);
        o30 = coopMultiplyAdd(p3, v0, o30);
        let v1 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[dim / 4u + 4u], KV_PITCH);
        o01 = coopMultiplyAdd(p0, v1, o01);
        o11 = coopMultiplyAdd(p1, v1, o11);
        o21 = coopMultiplyAdd(p2, v1, o21);
        o31 = coopMultiplyAdd(p3, v1, o31);
        let v2 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[dim / 4u + 8u], KV_PITCH);
        o02 = coopMultiplyAdd(p0, v2, o02);
        o12 = coopMultiplyAdd(p1, v2, o12);
        o22 = coopMultiplyAdd(p2, v2, o22);
        o32 = coopMultiplyAdd(p3, v2, o32);
        let v3 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[dim / 4u + 12u], KV_PITCH);
        o03 = coopMultiplyAdd(p0, v3, o03);
        o13 = coopMultiplyAdd(p1, v3, o13);
        o23 = coopMultiplyAdd(p2, v3, o23);
        o33 = coopMultiplyAdd(p3, v3, o33);
    }

    total += subgroupShuffleXor(total, 1u);
    if SHARERS == 4u {
        total += subgroupShuffleXor(total, 2u);
    }
    // The tile of scores becomes temporary blocks, and other invocations may still read factors.
    workgroupBarrier();
    factors[query] = 1.0 / total;
    let first = vec2<u32>(first_row, first_head);
    finish(o00, scratch, o_query + 0u, dim + 0u, first, local);
    finish(o01, scratch, o_query + 0u, dim + 16u, first, local);
    finish(o02, scratch, o_query + 0u, dim + 32u, first, local);
    finish(o03, scratch, o_query + 0u, dim + 48u, first, local);
    finish(o10, scratch, o_query + 16u, dim + 0u, first, local);
    finish(o11, scratch, o_query + 16u, dim + 16u, first, local);
    finish(o12, scratch, o_query + 16u, dim + 32u, first, local);
    finish(o13, scratch, o_query + 16u, dim + 48u, first, local);
    finish(o20, scratch, o_query + 32u, dim + 0u, first, local);
    finish(o21, scratch, o_query + 32u, dim + 16u, first, local);
    finish(o22, scratch, o_query + 32u, dim + 32u, first, local);
    finish(o23, scratch, o_query + 32u, dim + 48u, first, local);
    finish(o30, scratch, o_query + 48u, dim + 0u, first, local);
    finish(o31, scratch, o_query + 48u, dim + 16u, first, local);
    finish(o32, scratch, o_query + 48u, dim + 32u, first, local);
    finish(o33, scratch, o_query + 48u, dim + 48u, first, local);
}
