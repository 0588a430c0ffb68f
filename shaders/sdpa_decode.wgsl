// Scaled dot-product attention for single tokens, split over keys ("flash-decoding", Dao et al. 2023): a workgroup
// takes one part of the keys for HEADS query heads that share a KV head, so that K and V are read once for them.
// Subgroups take a key each for the scores; for the values, invocations own pairs of dims. sdpa_combine joins the parts.

@group(0) @binding(0) var<storage, read> qkv: array<f32>;             // [rows, QKV_STRIDE], q first
@group(0) @binding(1) var<storage, read> k_cache: array<CachePair>;   // [slots, N_KV, CAPACITY, D / 2]
@group(0) @binding(2) var<storage, read> v_cache: array<CachePair>;   // [slots, N_KV, CAPACITY, D / 2]
@group(0) @binding(3) var<storage, read> rows: array<Row>;            // [rows]
@group(0) @binding(4) var<storage, read_write> sums: array<vec2<f32>>;  // [rows, N_HEADS, PARTS, D / 2]
@group(0) @binding(5) var<storage, read_write> norms: array<vec2<f32>>; // [rows, N_HEADS, PARTS]: maximum, sum

const WIDTH: u32 = min(WORKGROUP, PAIRS);
const LANES: u32 = WORKGROUP / WIDTH; // invocations that share a pair of dims
const OWNED: u32 = (PAIRS + WORKGROUP - 1u) / WORKGROUP;
const LOWEST: f32 = -3.0e38;
var<workgroup> q_tile: array<vec2<f32>, HEADS * PAIRS>;
var<workgroup> scores: array<f32, HEADS * TILE>;
var<workgroup> shared_sums: array<vec2<f32>, WORKGROUP>;

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let row = rows[group.z];
    let keys = key_range(row.position, group.x);
    if keys.x >= keys.y {
        return;
    }
    let first_head = group.y * HEADS;
    let cache = (row.slot * N_KV + first_head / (N_HEADS / N_KV)) * CAPACITY;
    for (var i = local; i < HEADS * PAIRS; i += WORKGROUP) {
        let at = group.z * QKV_STRIDE + first_head * D + i * 2u;
        q_tile[i] = vec2<f32>(qkv[at], qkv[at + 1u]) * SCALE;
    }
    workgroupBarrier();

    var largest = array<f32, HEADS>();
    var total = array<f32, HEADS>();
    var own = array<array<vec2<f32>, OWNED>, HEADS>();
    for (var h = 0u; h < HEADS; h++) {
        largest[h] = LOWEST;
    }
    // Invocations past the last whole lane take no keys.
    let key_lane = select(TILE, local / WIDTH, local / WIDTH < LANES);
    for (var tile = keys.x; tile < keys.y; tile += TILE) {
        let count = min(TILE, keys.y - tile);
        for (var k = team_index; k < count; k += team_count) {
            score_key(k, (cache + (tile + k) % CAPACITY) * PAIRS);
        }
        workgroupBarrier();
        for (var h = 0u; h < HEADS; h++) {
            var now = largest[h];
            for (var k = 0u; k < count; k++) {
                now = max(now, scores[h * TILE + k]);
            }
            let rescale = exp(largest[h] - now);
            largest[h] = now;
            total[h] *= rescale;
            for (var o = 0u; o < OWNED; o++) {
                own[h][o] *= rescale;
            }
        }
        workgroupBarrier();
        for (var i = local; i < HEADS * TILE; i += WORKGROUP) {
            scores[i] = exp(scores[i] - largest[i / TILE]);
        }
        workgroupBarrier();
        for (var k = key_lane; k < count; k += LANES) {
            let value = (cache + (tile + k) % CAPACITY) * PAIRS;
            for (var o = 0u; o < OWNED; o++) {
                let pair = local % WIDTH + o * WORKGROUP;
                if pair < PAIRS {
                    let v = unpack_pair(v_cache[value + pair]);
                    for (var h = 0u; h < HEADS; h++) {
                        own[h][o] += scores[h * TILE + k] * v;
                    }
                }
            }
            for (var h = 0u; h < HEADS; h++) {
                total[h] += scores[h * TILE + k];
            }
        }
        workgroupBarrier();
    }
    for (var h = 0u; h < HEADS; h++) {
        let part = (group.z * N_HEADS + first_head + h) * PARTS + group.x;
        for (var o = 0u; o < OWNED; o++) {
            let sum = lane_sum(own[h][o], local);
            let pair = local + o * WORKGROUP;
            if pair < PAIRS {
                sums[part * PAIRS + pair] = sum;
            }
        }
        let sum = lane_sum(vec2<f32>(total[h]), local);
        if local == 0u {
            norms[part] = vec2<f32>(largest[h], sum.x);
        }
    }
}

// scores[h, k] = q[h] · key, by one subgroup.
fn score_key(k: u32, at: u32) {
    var products = array<f32, HEADS>();
    for (var pair = team_lane; pair < PAIRS; pair += team_size) {
        let key = unpack_pair(k_cache[at + pair]);
        for (var h = 0u; h < HEADS; h++) {
            products[h] += dot(q_tile[h * PAIRS + pair], key);
        }
    }
    for (var h = 0u; h < HEADS; h++) {
        let score = subgroupAdd(products[h]);
        if team_lane == 0u {
            scores[h * TILE + k] = score;
        }
    }
}

// Sum over the invocations that share a pair of dims, known to the first of them.
fn lane_sum(value: vec2<f32>, local: u32) -> vec2<f32> {
    if LANES == 1u {
        return value;
    }
    shared_sums[local] = value;
    workgroupBarrier();
    var sum = vec2<f32>();
    for (var lane = 0u; lane < LANES; lane++) {
        sum += shared_sums[local % WIDTH + lane * WIDTH];
    }
    workgroupBarrier();
    return sum;
}
