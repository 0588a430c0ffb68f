// Scaled dot-product attention for single tokens, split over keys ("flash-decoding", Dao et al. 2023): a workgroup
// takes one part of the keys for HEADS query heads that share a KV head, so that K and V are read once for them.
// Eight neighbouring invocations have a key for the scores; for the values each has eight dims of some keys.
// sdpa_combine joins the parts. The fragment before this one has `prepare`, which fills `heads`.

@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;         // [rows, QKV_STRIDE / 4], q first
@group(0) @binding(3) var<storage, read> rows: array<Row>;              // [rows]
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;        // [rows, N_HEADS, PARTS, D]
@group(0) @binding(5) var<storage, read_write> norms: array<vec2<f32>>; // [rows, N_HEADS, PARTS]: maximum, sum

const OCTETS: u32 = D / 8u;
const FOURS: u32 = D / 4u;
// Steps apart in the pool so that neither writes nor reads meet in a bank.
const SCORE_PITCH: u32 = HEADS * TILE + 4u;
const VALUE_PITCH: u32 = WORKGROUP + 4u;
const LOWEST: f32 = -3.0e38;

var<workgroup> heads: array<vec4<f32>, HEAD_ROWS * FOURS>; // q · SCALE in the first HEADS; see four_place
var<workgroup> pool: array<f32, max(KEY_LANES * SCORE_PITCH, 8u * VALUE_PITCH)>;
var<workgroup> lane_maxima: array<f32, HEADS * SCORE_LANES>;
var<workgroup> weights: array<f32, TILE * HEADS>; // exp(score - maximum)
var<workgroup> maxima: array<f32, 2u * HEADS>;    // before and after a tile, in turns
var<workgroup> rescales: array<f32, HEADS>;

// Where four dims of a head are kept: even fours first, so that neighbouring octets do not meet in a bank.
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

// The parts of q · key that each invocation's octets make, into the pool: [KEY_LANES, SCORE_PITCH].
fn score_keys(keys: array<CacheEight, KEYS_EACH * OCTETS_EACH>, local: u32) {
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
    for (var h = 0u; h < HEADS; h++) { // unrolled
        for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
            pool[lane * SCORE_PITCH + h * TILE + local / KEY_LANES + j * KEY_TEAMS] = products[h * KEYS_EACH + j];
        }
    }
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

// Softmax's weights of a tile, with the largest score so far as reference; `turn` says where that is kept.
fn weigh_keys(count: u32, turn: u32, local: u32) {
    let head = local / SCORE_LANES;
    let lane = local % SCORE_LANES;
    var scores = array<f32, SCORES_EACH>();
    if head < HEADS {
        var largest = LOWEST;
        for (var j = 0u; j < SCORES_EACH; j++) { // unrolled
            let key = lane + j * SCORE_LANES;
            var score = 0.0;
            for (var part = 0u; part < KEY_LANES; part++) {
                score += pool[part * SCORE_PITCH + head * TILE + key];
            }
            scores[j] = select(LOWEST, score, key < count);
            largest = max(largest, scores[j]);
        }
        lane_maxima[local] = largest;
    }
    workgroupBarrier();
    if head < HEADS {
        let before = maxima[turn * HEADS + head];
        var now = before;
        for (var j = 0u; j < SCORE_LANES; j++) {
            now = max(now, lane_maxima[head * SCORE_LANES + j]);
        }
        for (var j = 0u; j < SCORES_EACH; j++) { // unrolled
            weights[(lane + j * SCORE_LANES) * HEADS + head] = exp(scores[j] - now);
        }
        if lane == 0u {
            maxima[(1u - turn) * HEADS + head] = now;
            rescales[head] = exp(before - now);
        }
    }
    workgroupBarrier();
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
    if local < HEADS {
        maxima[local] = LOWEST;
    }
    prepare(group.z, row.position, first_head, kv_head, cache, keys.y > row.position, local);

    var own = array<Octet, HEADS>();
    var total = 0.0; // of the head that is numbered like this invocation
    let octet = local % OCTETS;
    let lane = local / OCTETS;
    var turn = 0u;
    for (var tile = keys.x; tile < keys.y; tile += TILE) {
        let count = min(TILE, keys.y - tile);
        let keys_held = fetch_keys(cache, tile, count, local);
        // On their way while the scores are made.
        var values = fetch_values(cache, tile, count, lane, octet);
        score_keys(keys_held, local);
        workgroupBarrier();
        weigh_keys(count, turn, local);
        turn = 1u - turn;
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
        if local < HEADS {
            total *= rescales[local];
            for (var k = 0u; k < count; k++) {
                total += weights[k * HEADS + local];
            }
        }
        workgroupBarrier();
    }

    for (var h = 0u; h < HEADS; h++) { // unrolled
        let part = (group.z * N_HEADS + first_head + h) * PARTS + group.x;
        for (var i = 0u; i < 4u; i++) { // unrolled
            pool[i * VALUE_PITCH + local] = own[h].lo[i];
            pool[(4u + i) * VALUE_PITCH + local] = own[h].hi[i];
        }
        workgroupBarrier();
        for (var dim = local; dim < D; dim += WORKGROUP) {
            var sum = 0.0;
            for (var l = 0u; l < VALUE_LANES; l++) {
                sum += pool[(dim % 8u) * VALUE_PITCH + l * OCTETS + dim / 8u];
            }
            sums[part * D + dim] = sum;
        }
        workgroupBarrier();
    }
    if local < HEADS {
        norms[(group.z * N_HEADS + first_head + local) * PARTS + group.x] = vec2<f32>(maxima[turn * HEADS + local], total);
    }
}
