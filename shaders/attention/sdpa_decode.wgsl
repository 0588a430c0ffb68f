//! needs: cache, heads, key_range, octet, scores, step; constants AHEAD, CAPACITY, D, HEADS,
//! HEADS_AT_ONCE, HEAD_ROWS, KEYS_EACH, KEY_LANES, KEY_TEAMS, N_HEADS, N_KV, OCTETS_EACH,
//! OUT_ROUNDS, PARTS, TILE, VALUE_LANES, WORKGROUP
// Scaled dot-product attention for single tokens, split over keys ("flash-decoding", Dao et al.
// 2023): a workgroup takes one part of the keys for HEADS query heads that share a KV head, so that
// K and V are read once for them. Eight neighbouring invocations have a key for the scores; for the
// values each has eight dims of some keys. sdpa_combine joins the parts. Fragments before this one
// have `prepare`, which fills `heads`, and what becomes of scores.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;         // [rows, QKV_STRIDE / 4], q first
@group(0) @binding(3) var<storage, read> rows: array<Row>;              // [rows]
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;  // [rows, N_HEADS, PARTS, D / 4]
@group(0) @binding(5) var<storage, read_write> norms: array<vec2<f32>>; // [rows, N_HEADS, PARTS]: maximum, sum

const OCTETS: u32 = D / 8u;
const FOURS: u32 = D / 4u;
const LOWEST: f32 = -3.0e38;

var<workgroup> heads: array<vec4<f32>, HEAD_ROWS * FOURS>; // q · SCALE in the first HEADS; see four_place
var<workgroup> weights: array<f32, TILE * HEADS>;          // exp(score - maximum)
var<workgroup> rescales: array<f32, HEADS>;
var<workgroup> own_sums: array<vec4<f32>, VALUE_LANES * HEADS_AT_ONCE * FOURS>;

// Of a head's keys so far: their largest score, and this invocation's share of the sum of weights.
struct Softmax {
    maximum: f32,
    total: f32,
}

// Where four dims of a head are kept: even fours first, so that neighbouring octets do not meet in
// a bank.
fn four_place(head: u32, four: u32) -> u32 {
    return head * FOURS + (four % 2u) * OCTETS + four / 2u;
}

// Some octets of a team's keys; keys past the end repeat the last one.
fn fetch_keys(cache: u32, tile: u32, count: u32, local: u32) -> array<CacheEight, KEYS_EACH * OCTETS_EACH> {
    var keys = array<CacheEight, KEYS_EACH * OCTETS_EACH>();
    for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
        let key = tile + min(local / KEY_LANES + j * KEY_TEAMS, count - 1u);
        let place = (cache + key % CAPACITY) * OCTETS;
        for (var o = 0u; o < OCTETS_EACH; o++) { // unrolled
            keys[j * OCTETS_EACH + o] = k_cache[place + min(local % KEY_LANES + o * KEY_LANES, OCTETS - 1u)];
        }
    }
    return keys;
}

// The parts of q · key that this invocation's octets make.
fn score_keys(keys: array<CacheEight, KEYS_EACH * OCTETS_EACH>, local: u32) -> array<f32, HEADS * KEYS_EACH> {
    let lane = local % KEY_LANES;
    var products = array<f32, HEADS * KEYS_EACH>();
    for (var o = 0u; o < OCTETS_EACH; o++) { // unrolled
        let octet = lane + o * KEY_LANES;
        if octet < OCTETS {
            var unpacked = array<Octet, KEYS_EACH>();
            for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
                unpacked[j] = unpack_eight(keys[j * OCTETS_EACH + o]);
            }
            for (var h = 0u; h < HEADS; h++) { // unrolled
                let lo = heads[h * FOURS + octet];
                let hi = heads[h * FOURS + OCTETS + octet];
                for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
                    products[h * KEYS_EACH + j] += dot(lo, unpacked[j].lo) + dot(hi, unpacked[j].hi);
                }
            }
        }
    }
    return products;
}

// Eight dims of AHEAD values from key `first` of a tile on; keys past the end repeat the last one.
fn fetch_values(cache: u32, tile: u32, count: u32, first: u32, octet: u32) -> array<CacheEight, AHEAD> {
    var values = array<CacheEight, AHEAD>();
    for (var j = 0u; j < AHEAD; j++) { // unrolled
        let key = tile + min(first + j * VALUE_LANES, count - 1u);
        values[j] = v_cache[(cache + key % CAPACITY) * OCTETS + octet];
    }
    return values;
}

// This workgroup's sums of values, of as many heads at once as there is room for.
fn keep_sums(own: array<Octet, HEADS>, first_part: u32, local: u32) {
    for (var round = 0u; round < OUT_ROUNDS; round++) { // unrolled
        if local / OCTETS < VALUE_LANES {
            for (var h = 0u; h < HEADS_AT_ONCE; h++) { // unrolled
                let at = (local / OCTETS * HEADS_AT_ONCE + h) * FOURS + local % OCTETS;
                own_sums[at] = own[round * HEADS_AT_ONCE + h].lo;
                own_sums[at + OCTETS] = own[round * HEADS_AT_ONCE + h].hi;
            }
        }
        workgroupBarrier();
        for (var i = local; i < HEADS_AT_ONCE * FOURS; i += WORKGROUP) {
            var sum = own_sums[i];
            for (var lane = 1u; lane < VALUE_LANES; lane++) {
                sum += own_sums[lane * HEADS_AT_ONCE * FOURS + i];
            }
            let part = first_part + (round * HEADS_AT_ONCE + i / FOURS) * PARTS;
            // `lo` of all octets comes before `hi`.
            sums[part * FOURS + i % OCTETS * 2u + i / OCTETS % 2u] = sum;
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

    var own = array<Octet, HEADS>();
    let octet = local % OCTETS;
    let lane = local / OCTETS;
    var softmax = Softmax(LOWEST, 0.0);
    for (var tile = keys.x; tile < keys.y; tile += TILE) {
        let count = min(TILE, keys.y - tile);
        let keys_held = fetch_keys(cache, tile, count, local);
        // On their way while the scores are made.
        var values = fetch_values(cache, tile, count, lane, octet);
        keep_scores(score_keys(keys_held, local), local);
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
                let value = unpack_eight(values[j]);
                // Past the tile there are no weights, past the last key they are 0.
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
                values = fetch_values(cache, tile, count, first, octet);
            }
        }
        if tile + TILE < keys.y {
            workgroupBarrier();
        }
    }

    let first_part = (group.z * N_HEADS + first_head) * PARTS + group.x;
    keep_sums(own, first_part, local);
    keep_softmax(softmax, first_part, local);
}
