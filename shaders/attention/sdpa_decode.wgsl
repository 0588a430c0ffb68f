//! needs: cache, heads, key_range, vec8, scores, step; constants AHEAD, CAPACITY, D, HEADS,
//!   HEADS_AT_ONCE, HEAD_ROWS, KEYS_EACH, KEY_LANES, KEY_CLUSTERS, N_HEADS, N_KV, VEC8S_EACH,
//!   OUT_ROUNDS, PARTS, TILE, VALUE_LANES, WORKGROUP

// Scaled dot-product attention for single tokens, split over keys.
// That is "flash-decoding" (Dao et al. 2023).
// A workgroup takes one part of the keys for HEADS query heads that share a KV head.
// So K and V are read once for these heads.
// For the scores, KEY_LANES neighbouring invocations share a key.
// For the values, each invocation has eight dims of some keys.
// sdpa_combine combines the partial outputs.
// Two fragments before this one define `prepare`, which fills `heads`, and the softmax of the
// scores.

// [rows, QKV_STRIDE / 4], q first
@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;              // [rows]
// [rows, N_HEADS, PARTS, D / 4]
@group(0) @binding(4) var<storage, read_write> partial_outputs: array<vec4<f32>>;
// [rows, N_HEADS, PARTS]: maximum, sum
@group(0) @binding(5) var<storage, read_write> softmax_stats: array<vec2<f32>>;

const VEC8S: u32 = D / 8u;
const VEC4S: u32 = D / 4u;
const LOWEST: f32 = -3.0e38;

// q · SCALE in the first HEADS rows, in the order of vec4_place
var<workgroup> heads: array<vec4<f32>, HEAD_ROWS * VEC4S>;
var<workgroup> weights: array<f32, TILE * HEADS>;          // exp(score - maximum)
var<workgroup> rescales: array<f32, HEADS>;
var<workgroup> own_sums: array<vec4<f32>, VALUE_LANES * HEADS_AT_ONCE * VEC4S>;

// Softmax of the keys so far: the largest score, and this invocation's part of the sum of weights.
struct Softmax {
    maximum: f32,
    total: f32,
}

// The place of four dims of a head. vec4s with even numbers come first.
// So neighbouring vec8s are in different banks.
fn vec4_place(head: u32, i4: u32) -> u32 {
    return head * VEC4S + (i4 % 2u) * VEC8S + i4 / 2u;
}

// Loads this invocation's vec8s of some keys. Keys past the end repeat the last one.
fn fetch_keys(
    cache: u32,
    tile: u32,
    count: u32,
    local: u32,
) -> array<CacheVec8, KEYS_EACH * VEC8S_EACH> {
    var keys = array<CacheVec8, KEYS_EACH * VEC8S_EACH>();
    for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
        let key = tile + min(local / KEY_LANES + j * KEY_CLUSTERS, count - 1u);
        let place = (cache + key % CAPACITY) * VEC8S;
        for (var o = 0u; o < VEC8S_EACH; o++) { // unrolled
            keys[j * VEC8S_EACH + o] = k_cache[place + min(
                local % KEY_LANES + o * KEY_LANES, VEC8S - 1u,
            )];
        }
    }
    return keys;
}

// This invocation's terms of q · key.
fn score_keys(
    keys: array<CacheVec8, KEYS_EACH * VEC8S_EACH>,
    local: u32,
) -> array<f32, HEADS * KEYS_EACH> {
    let lane = local % KEY_LANES;
    var products = array<f32, HEADS * KEYS_EACH>();
    for (var o = 0u; o < VEC8S_EACH; o++) { // unrolled
        let vec8 = lane + o * KEY_LANES;
        if vec8 < VEC8S {
            var unpacked = array<Vec8, KEYS_EACH>();
            for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
                unpacked[j] = unpack_vec8(keys[j * VEC8S_EACH + o]);
            }
            for (var h = 0u; h < HEADS; h++) { // unrolled
                let lo = heads[h * VEC4S + vec8];
                let hi = heads[h * VEC4S + VEC8S + vec8];
                for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
                    products[h * KEYS_EACH + j] += dot(lo, unpacked[j].lo)
                        + dot(hi, unpacked[j].hi);
                }
            }
        }
    }
    return products;
}

// Eight dims of AHEAD values, from key `first` of a tile on. Keys past the end repeat the last one.
fn fetch_values(
    cache: u32,
    tile: u32,
    count: u32,
    first: u32,
    vec8: u32,
) -> array<CacheVec8, AHEAD> {
    var values = array<CacheVec8, AHEAD>();
    for (var j = 0u; j < AHEAD; j++) { // unrolled
        let key = tile + min(first + j * VALUE_LANES, count - 1u);
        values[j] = v_cache[(cache + key % CAPACITY) * VEC8S + vec8];
    }
    return values;
}

// Stores this workgroup's sums of values, for as many heads at once as workgroup memory holds.
fn store_sums(own: array<Vec8, HEADS>, first_part: u32, local: u32) {
    for (var round = 0u; round < OUT_ROUNDS; round++) { // unrolled
        if local / VEC8S < VALUE_LANES {
            for (var h = 0u; h < HEADS_AT_ONCE; h++) { // unrolled
                let at = (local / VEC8S * HEADS_AT_ONCE + h) * VEC4S + local % VEC8S;
                own_sums[at] = own[round * HEADS_AT_ONCE + h].lo;
                own_sums[at + VEC8S] = own[round * HEADS_AT_ONCE + h].hi;
            }
        }
        workgroupBarrier();
        for (var i = local; i < HEADS_AT_ONCE * VEC4S; i += WORKGROUP) {
            var sum = own_sums[i];
            for (var lane = 1u; lane < VALUE_LANES; lane++) {
                sum += own_sums[lane * HEADS_AT_ONCE * VEC4S + i];
            }
            let part = first_part + (round * HEADS_AT_ONCE + i / VEC4S) * PARTS;
            // `lo` of all vec8s comes before `hi`.
            partial_outputs[part * VEC4S + i % VEC8S * 2u + i / VEC8S % 2u] = sum;
        }
        if round + 1u < OUT_ROUNDS {
            workgroupBarrier();
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = rows[group.z];
    let keys = key_range(row.position, group.x);
    if keys.x >= keys.y {
        return;
    }
    let first_head = group.y * HEADS;
    let kv_head = first_head / (N_HEADS / N_KV);
    let cache = (row.slot * N_KV + kv_head) * CAPACITY;
    prepare(group.z, row.position, first_head, kv_head, cache, keys.y > row.position, local);

    var own = array<Vec8, HEADS>();
    let vec8 = local % VEC8S;
    let lane = local / VEC8S;
    var softmax = Softmax(LOWEST, 0.0);
    for (var tile = keys.x; tile < keys.y; tile += TILE) {
        let count = min(TILE, keys.y - tile);
        let keys_held = fetch_keys(cache, tile, count, local);
        // The values are loaded while the scores are computed.
        var values = fetch_values(cache, tile, count, lane, vec8);
        store_scores(score_keys(keys_held, local), local);
        workgroupBarrier();
        softmax = weigh_keys(softmax, count, local);
        workgroupBarrier();
        for (var h = 0u; h < HEADS; h++) { // unrolled
            own[h].lo *= rescales[h];
            own[h].hi *= rescales[h];
        }
        var first = lane;
        while first < count && lane < VALUE_LANES {
            for (var j = 0u; j < AHEAD; j++) { // unrolled
                let value = unpack_vec8(values[j]);
                // There are no weights past the tile. Weights past the last key are 0.
                let key = min(first + j * VALUE_LANES, TILE - 1u);
                let counts = f32(first + j * VALUE_LANES < TILE);
                for (var h = 0u; h < HEADS; h++) { // unrolled
                    let weight = weights[key * HEADS + h] * counts;
                    own[h].lo += weight * value.lo;
                    own[h].hi += weight * value.hi;
                }
            }
            first += AHEAD * VALUE_LANES;
            if first < count {
                values = fetch_values(cache, tile, count, first, vec8);
            }
        }
        if tile + TILE < keys.y {
            workgroupBarrier();
        }
    }

    let first_part = (group.z * N_HEADS + first_head) * PARTS + group.x;
    store_sums(own, first_part, local);
    store_softmax(softmax, first_part, local);
}
