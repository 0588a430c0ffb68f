// Scaled dot-product attention of one head for consecutive tokens of one sequence, on cooperative matrices (f16 in,
// f32 sums). A subgroup has 16 queries, or shares them with another that has the other half of the dims where D is 512.
// Keys come in tiles of 32, twice: first for the largest score of each query, then for softmax and values. The sums
// thus never need rescaling, which the matrices' hidden layout would make expensive.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;      // [rows, QKV_STRIDE / 4], q first
@group(0) @binding(1) var<storage, read> k_cache: array<vec4<f16>>;  // [slots, N_KV, CAPACITY, D / 4]
@group(0) @binding(2) var<storage, read> v_cache: array<vec4<f16>>;  // [slots, N_KV, CAPACITY, D / 4]
@group(0) @binding(3) var<storage, read> rows: array<Row>;           // [rows]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;      // [rows, OUT_STRIDE]
@group(0) @binding(5) var<uniform> step: Step;

const HALVES: u32 = D / 256u;           // subgroups that share queries
const TILES: u32 = 4u / HALVES;         // of 16 queries
const Q_ROWS: u32 = 16u * TILES;
const KEYS: u32 = 32u;
const Q_PITCH: u32 = D / 4u + 2u;       // in vec4s
const S_PITCH: u32 = 36u;
const P_PITCH: u32 = 10u;               // in vec4s
const HIDDEN: f32 = -3.0e38;
var<workgroup> q_tile: array<vec4<f16>, Q_ROWS * Q_PITCH>;
var<workgroup> s_tile: array<f32, TILES * 16u * S_PITCH>;
var<workgroup> p_tile: array<vec4<f16>, 4u * 16u * P_PITCH>;

// Scores of this subgroup's share of a tile of keys.
fn write_scores(tile: u32, part: u32, cache: u32, first_key: u32) {
    let q_at = tile * 16u * Q_PITCH;
    let keys = part * (KEYS / HALVES);
    let k_at = (cache + (first_key + keys) % CAPACITY) * (D / 4u);
    let s_at = tile * 16u * S_PITCH + keys;
    var first = coop_mat16x16<f32, C>();
    var second = coop_mat16x16<f32, C>();
    for (var d = 0u; d < D / 4u; d += 4u) {
        let q = coopLoadT<coop_mat16x16<f16, A>>(&q_tile[q_at + d], Q_PITCH);
        let k = coopLoad<coop_mat16x16<f16, B>>(&k_cache[k_at + d], D / 4u);
        first = coopMultiplyAdd(q, k, first);
        if HALVES == 1u {
            let more = coopLoad<coop_mat16x16<f16, B>>(&k_cache[k_at + 16u * (D / 4u) + d], D / 4u);
            second = coopMultiplyAdd(q, more, second);
        }
    }
    coopStoreT(first, &s_tile[s_at], S_PITCH);
    if HALVES == 1u {
        coopStoreT(second, &s_tile[s_at + 16u], S_PITCH);
    }
}

// A query's score of a key, or HIDDEN where it does not see it.
fn seen(score: f32, key: u32, position: u32) -> f32 {
    let past_window = WINDOW > 0u && key + WINDOW <= position;
    return select(score, HIDDEN, key > position || past_window);
}

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let first_row = group.x * Q_ROWS;
    let row_count = min(Q_ROWS, step.rows - first_row);
    let first_position = rows[first_row].position;
    let end = first_position + row_count;
    let cache = (rows[first_row].slot * N_KV + group.y / (N_HEADS / N_KV)) * CAPACITY;
    let seen_first = select(0u, first_position + 1u - min(WINDOW, first_position + 1u), WINDOW > 0u);
    let first_key = seen_first - seen_first % KEYS;

    for (var i = local; i < Q_ROWS * (D / 4u); i += 128u) {
        let row = i / (D / 4u);
        let at = (first_row + min(row, row_count - 1u)) * (QKV_STRIDE / 4u) + group.y * (D / 4u) + i % (D / 4u);
        q_tile[row * Q_PITCH + i % (D / 4u)] = vec4<f16>(qkv[at] * SCALE);
    }
    workgroupBarrier();

    let tile = subgroup / HALVES;
    let part = subgroup % HALVES;
    // Two invocations a query, 16 keys each.
    let query = lane / 2u;
    let position = first_position + min(tile * 16u + query, row_count - 1u);
    let s_at = (tile * 16u + query) * S_PITCH + (lane % 2u) * 16u;
    let p_at = (subgroup * 16u + query) * P_PITCH + (lane % 2u) * 4u;

    var largest = HIDDEN;
    for (var key = first_key; key < end; key += KEYS) {
        write_scores(tile, part, cache, key);
        workgroupBarrier();
        for (var i = 0u; i < 16u; i++) {
            largest = max(largest, seen(s_tile[s_at + i], key + (lane % 2u) * 16u + i, position));
        }
        workgroupBarrier();
    }
    largest = max(largest, subgroupShuffleXor(largest, 1u));

    var o0 = coop_mat16x16<f32, C>();
    var o1 = coop_mat16x16<f32, C>();
    var o2 = coop_mat16x16<f32, C>();
    var o3 = coop_mat16x16<f32, C>();
    var o4 = coop_mat16x16<f32, C>();
    var o5 = coop_mat16x16<f32, C>();
    var o6 = coop_mat16x16<f32, C>();
    var o7 = coop_mat16x16<f32, C>();
    var o8 = coop_mat16x16<f32, C>();
    var o9 = coop_mat16x16<f32, C>();
    var o10 = coop_mat16x16<f32, C>();
    var o11 = coop_mat16x16<f32, C>();
    var o12 = coop_mat16x16<f32, C>();
    var o13 = coop_mat16x16<f32, C>();
    var o14 = coop_mat16x16<f32, C>();
    var o15 = coop_mat16x16<f32, C>();
    var total = 0.0;
    for (var key = first_key; key < end; key += KEYS) {
        write_scores(tile, part, cache, key);
        workgroupBarrier();
        for (var i = 0u; i < 4u; i++) {
            var weights = vec4<f32>();
            for (var j = 0u; j < 4u; j++) {
                let score = seen(s_tile[s_at + 4u * i + j], key + (lane % 2u) * 16u + 4u * i + j, position);
                weights[j] = select(0.0, exp(score - largest), score > HIDDEN);
            }
            total += weights.x + weights.y + weights.z + weights.w;
            p_tile[p_at + i] = vec4<f16>(weights);
        }
        workgroupBarrier();
        for (var k = 0u; k < KEYS; k += 16u) {
            let p = coopLoadT<coop_mat16x16<f16, A>>(&p_tile[subgroup * 16u * P_PITCH + k / 4u], P_PITCH);
            let v_at = (cache + (key + k) % CAPACITY) * (D / 4u) + part * 64u;
            let v0 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 0u], D / 4u);
            o0 = coopMultiplyAdd(p, v0, o0);
            let v1 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 4u], D / 4u);
            o1 = coopMultiplyAdd(p, v1, o1);
            let v2 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 8u], D / 4u);
            o2 = coopMultiplyAdd(p, v2, o2);
            let v3 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 12u], D / 4u);
            o3 = coopMultiplyAdd(p, v3, o3);
            let v4 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 16u], D / 4u);
            o4 = coopMultiplyAdd(p, v4, o4);
            let v5 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 20u], D / 4u);
            o5 = coopMultiplyAdd(p, v5, o5);
            let v6 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 24u], D / 4u);
            o6 = coopMultiplyAdd(p, v6, o6);
            let v7 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 28u], D / 4u);
            o7 = coopMultiplyAdd(p, v7, o7);
            let v8 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 32u], D / 4u);
            o8 = coopMultiplyAdd(p, v8, o8);
            let v9 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 36u], D / 4u);
            o9 = coopMultiplyAdd(p, v9, o9);
            let v10 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 40u], D / 4u);
            o10 = coopMultiplyAdd(p, v10, o10);
            let v11 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 44u], D / 4u);
            o11 = coopMultiplyAdd(p, v11, o11);
            let v12 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 48u], D / 4u);
            o12 = coopMultiplyAdd(p, v12, o12);
            let v13 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 52u], D / 4u);
            o13 = coopMultiplyAdd(p, v13, o13);
            let v14 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 56u], D / 4u);
            o14 = coopMultiplyAdd(p, v14, o14);
            let v15 = coopLoadT<coop_mat16x16<f16, B>>(&v_cache[v_at + 60u], D / 4u);
            o15 = coopMultiplyAdd(p, v15, o15);
        }
    }
    total += subgroupShuffleXor(total, 1u);

    // A matrix at a time through workgroup memory, to divide its rows.
    let scratch = subgroup * 256u;
    let row = tile * 16u + query;
    let out_at = (first_row + row) * OUT_STRIDE + group.y * D + part * 256u + (lane % 2u) * 8u;
    let at_s = scratch + query * 16u + (lane % 2u) * 8u;
    workgroupBarrier();
    coopStoreT(o0, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 0u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o1, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 16u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o2, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 32u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o3, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 48u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o4, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 64u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o5, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 80u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o6, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 96u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o7, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 112u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o8, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 128u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o9, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 144u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o10, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 160u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o11, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 176u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o12, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 192u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o13, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 208u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o14, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 224u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
    coopStoreT(o15, &s_tile[scratch], 16u);
    workgroupBarrier();
    if row < row_count {
        for (var i = 0u; i < 8u; i++) {
            out[out_at + 240u + i] = s_tile[at_s + i] / total;
        }
    }
    workgroupBarrier();
}
