// Scaled dot-product attention of one head for consecutive tokens of one sequence, on cooperative matrices (f16 in,
// f32 sums). A workgroup has four subgroups; each takes 128 dims of 16 queries, so that two of them share queries where
// D is 256, and four where it is 512. Their parts of the scores meet in workgroup memory.
// Keys come in tiles, twice: first for the largest score of each query, then for softmax and values. The sums thus never
// need rescaling, which the matrices' hidden layout would make expensive.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;      // [rows, QKV_STRIDE / 4], q first
@group(0) @binding(1) var<storage, read> k_cache: array<vec4<f16>>;  // [slots, N_KV, CAPACITY, D / 4]
@group(0) @binding(2) var<storage, read> v_cache: array<vec4<f16>>;  // [slots, N_KV, CAPACITY, D / 4]
@group(0) @binding(3) var<storage, read> rows: array<Row>;           // [rows]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;      // [rows, OUT_STRIDE]
@group(0) @binding(5) var<uniform> step: Step;

const SHARERS: u32 = D / 128u;          // subgroups that share queries
const TILES: u32 = 4u / SHARERS;        // of 16 queries
const Q_ROWS: u32 = 16u * TILES;
const KEYS: u32 = 8192u / D;            // of a tile: 32 or 16
const FOURS: u32 = D / 4u;
const PITCH: u32 = FOURS + 2u;          // of queries and values, in vec4s
const S_PITCH: u32 = KEYS + 4u;
const P_PITCH: u32 = KEYS / 4u + 2u;    // in vec4s
const HIDDEN: f32 = -3.0e38;
var<workgroup> q_tile: array<vec4<f16>, Q_ROWS * PITCH>;
var<workgroup> v_tile: array<vec4<f16>, KEYS * PITCH>;
var<workgroup> s_tile: array<f32, 64u * S_PITCH>;          // of each subgroup [16, KEYS]
var<workgroup> p_tile: array<vec4<f16>, 64u * P_PITCH>;    // of each subgroup [16, KEYS]

// This subgroup's part of the scores of a tile of keys: its 128 dims from `dims` on (in vec4s).
fn write_scores(subgroup: u32, tile: u32, dims: u32, k_at: u32) {
    let q_at = tile * 16u * PITCH + dims;
    var first = coop_mat16x16<f32, C>();
    var second = coop_mat16x16<f32, C>();
    for (var d = 0u; d < 32u; d += 4u) {
        let q = coopLoadT<coop_mat16x16<f16, A>>(&q_tile[q_at + d], PITCH);
        let k = coopLoad<coop_mat16x16<f16, B>>(&k_cache[k_at + dims + d], FOURS);
        first = coopMultiplyAdd(q, k, first);
        if KEYS == 32u {
            let more = coopLoad<coop_mat16x16<f16, B>>(&k_cache[k_at + 16u * FOURS + dims + d], FOURS);
            second = coopMultiplyAdd(q, more, second);
        }
    }
    coopStoreT(first, &s_tile[subgroup * 16u * S_PITCH], S_PITCH);
    if KEYS == 32u {
        coopStoreT(second, &s_tile[subgroup * 16u * S_PITCH + 16u], S_PITCH);
    }
}

// A query's score of a key, or HIDDEN where it does not see it.
fn score(at: u32, key: u32, position: u32) -> f32 {
    var sum = s_tile[at];
    for (var sharer = 1u; sharer < SHARERS; sharer++) {
        sum += s_tile[at + sharer * 16u * S_PITCH];
    }
    let past_window = WINDOW > 0u && key + WINDOW <= position;
    return select(sum, HIDDEN, key > position || past_window);
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

    for (var i = local; i < Q_ROWS * FOURS; i += 128u) {
        let row = i / FOURS;
        let at = (first_row + min(row, row_count - 1u)) * (QKV_STRIDE / 4u) + group.y * FOURS + i % FOURS;
        q_tile[row * PITCH + i % FOURS] = vec4<f16>(qkv[at] * SCALE);
    }
    workgroupBarrier();

    let tile = subgroup / SHARERS;
    let dims = (subgroup % SHARERS) * 32u;
    // Two invocations a query, half of the keys each.
    let query = lane / 2u;
    let keys = (lane % 2u) * (KEYS / 2u);
    let position = first_position + min(tile * 16u + query, row_count - 1u);
    let s_at = (tile * SHARERS * 16u + query) * S_PITCH + keys;
    let p_at = (subgroup * 16u + query) * P_PITCH + keys / 4u;

    var largest = HIDDEN;
    for (var key = first_key; key < end; key += KEYS) {
        write_scores(subgroup, tile, dims, (cache + key % CAPACITY) * FOURS);
        workgroupBarrier();
        for (var i = 0u; i < KEYS / 2u; i++) {
            largest = max(largest, score(s_at + i, key + keys + i, position));
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
    var total = 0.0;
    // 16 vec4s of values an invocation: the tile is contiguous in the cache.
    for (var key = first_key; key < end; key += KEYS) {
        let at = (cache + key % CAPACITY) * FOURS;
        let v0 = v_cache[at + local + 0u];
        let v1 = v_cache[at + local + 128u];
        let v2 = v_cache[at + local + 256u];
        let v3 = v_cache[at + local + 384u];
        let v4 = v_cache[at + local + 512u];
        let v5 = v_cache[at + local + 640u];
        let v6 = v_cache[at + local + 768u];
        let v7 = v_cache[at + local + 896u];
        let v8 = v_cache[at + local + 1024u];
        let v9 = v_cache[at + local + 1152u];
        let v10 = v_cache[at + local + 1280u];
        let v11 = v_cache[at + local + 1408u];
        let v12 = v_cache[at + local + 1536u];
        let v13 = v_cache[at + local + 1664u];
        let v14 = v_cache[at + local + 1792u];
        let v15 = v_cache[at + local + 1920u];
        write_scores(subgroup, tile, dims, at);
        v_tile[((local + 0u) / FOURS) * PITCH + (local + 0u) % FOURS] = v0;
        v_tile[((local + 128u) / FOURS) * PITCH + (local + 128u) % FOURS] = v1;
        v_tile[((local + 256u) / FOURS) * PITCH + (local + 256u) % FOURS] = v2;
        v_tile[((local + 384u) / FOURS) * PITCH + (local + 384u) % FOURS] = v3;
        v_tile[((local + 512u) / FOURS) * PITCH + (local + 512u) % FOURS] = v4;
        v_tile[((local + 640u) / FOURS) * PITCH + (local + 640u) % FOURS] = v5;
        v_tile[((local + 768u) / FOURS) * PITCH + (local + 768u) % FOURS] = v6;
        v_tile[((local + 896u) / FOURS) * PITCH + (local + 896u) % FOURS] = v7;
        v_tile[((local + 1024u) / FOURS) * PITCH + (local + 1024u) % FOURS] = v8;
        v_tile[((local + 1152u) / FOURS) * PITCH + (local + 1152u) % FOURS] = v9;
        v_tile[((local + 1280u) / FOURS) * PITCH + (local + 1280u) % FOURS] = v10;
        v_tile[((local + 1408u) / FOURS) * PITCH + (local + 1408u) % FOURS] = v11;
        v_tile[((local + 1536u) / FOURS) * PITCH + (local + 1536u) % FOURS] = v12;
        v_tile[((local + 1664u) / FOURS) * PITCH + (local + 1664u) % FOURS] = v13;
        v_tile[((local + 1792u) / FOURS) * PITCH + (local + 1792u) % FOURS] = v14;
        v_tile[((local + 1920u) / FOURS) * PITCH + (local + 1920u) % FOURS] = v15;
        workgroupBarrier();
        for (var i = 0u; i < KEYS / 8u; i++) {
            var weights = vec4<f32>();
            for (var j = 0u; j < 4u; j++) {
                let value = score(s_at + 4u * i + j, key + keys + 4u * i + j, position);
                weights[j] = select(0.0, exp(value - largest), value > HIDDEN);
            }
            total += weights.x + weights.y + weights.z + weights.w;
            p_tile[p_at + i] = vec4<f16>(weights);
        }
        workgroupBarrier();
        for (var k = 0u; k < KEYS; k += 16u) {
            let p = coopLoadT<coop_mat16x16<f16, A>>(&p_tile[subgroup * 16u * P_PITCH + k / 4u], P_PITCH);
            let v_at = k * PITCH + dims;
            let w0 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 0u], PITCH);
            o0 = coopMultiplyAdd(p, w0, o0);
            let w1 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 4u], PITCH);
            o1 = coopMultiplyAdd(p, w1, o1);
            let w2 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 8u], PITCH);
            o2 = coopMultiplyAdd(p, w2, o2);
            let w3 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 12u], PITCH);
            o3 = coopMultiplyAdd(p, w3, o3);
            let w4 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 16u], PITCH);
            o4 = coopMultiplyAdd(p, w4, o4);
            let w5 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 20u], PITCH);
            o5 = coopMultiplyAdd(p, w5, o5);
            let w6 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 24u], PITCH);
            o6 = coopMultiplyAdd(p, w6, o6);
            let w7 = coopLoadT<coop_mat16x16<f16, B>>(&v_tile[v_at + 28u], PITCH);
            o7 = coopMultiplyAdd(p, w7, o7);
        }
        workgroupBarrier();
    }
    total += subgroupShuffleXor(total, 1u);

    // A matrix at a time through workgroup memory, to divide its rows.
    let scratch = subgroup * 256u;
    let row = tile * 16u + query;
    let out_at = (first_row + row) * OUT_STRIDE + group.y * D + 4u * dims + (lane % 2u) * 8u;
    let at_s = scratch + query * 16u + (lane % 2u) * 8u;
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
}
