//! needs: cache, step; constants CAPACITY, D, K_TILE, N_HEADS, N_KV, OUT_STRIDE, QKV_STRIDE,
//! Q_TILE, SCALE, WINDOW, WORKGROUP

// Scaled dot-product attention of one head over the KV cache.
// A workgroup has Q_TILE consecutive tokens of one sequence and reads keys in tiles of K_TILE.
// It updates softmax's maximum and sum with each tile. Each invocation owns some dims.

@group(0) @binding(0) var<storage, read> qkv: array<f32>;            // [rows, QKV_STRIDE], q first
// [slots, N_KV, CAPACITY, D / 2]
@group(0) @binding(1) var<storage, read> k_cache: array<CachePair>;
// [slots, N_KV, CAPACITY, D / 2]
@group(0) @binding(2) var<storage, read> v_cache: array<CachePair>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;           // [rows]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;      // [rows, OUT_STRIDE]
@group(0) @binding(5) var<uniform> step: Step;

const PAIRS: u32 = D / 2u;
const OWNED: u32 = (PAIRS + WORKGROUP - 1u) / WORKGROUP; // pairs of dims per invocation
const HIDDEN: f32 = -3.0e38;
var<workgroup> q_tile: array<vec2<f32>, Q_TILE * PAIRS>;
var<workgroup> scores: array<f32, Q_TILE * K_TILE>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first_row = group.x * Q_TILE;
    let row_count = min(Q_TILE, step.rows - first_row);
    let slot = rows[first_row].slot;
    let first_position = rows[first_row].position;
    let last_position = first_position + row_count - 1u;
    let first_key = select(0u, first_position + 1u - min(WINDOW, first_position + 1u), WINDOW > 0u);
    let cache = (slot * N_KV + group.y / (N_HEADS / N_KV)) * CAPACITY;

    for (var i = local; i < Q_TILE * PAIRS; i += WORKGROUP) {
        let row = first_row + min(i / PAIRS, row_count - 1u);
        let at = row * QKV_STRIDE + group.y * D + (i % PAIRS) * 2u;
        q_tile[i] = vec2<f32>(qkv[at], qkv[at + 1u]) * SCALE;
    }
    workgroupBarrier();

    var largest = array<f32, Q_TILE>();
    var total = array<f32, Q_TILE>();
    var sums = array<array<vec2<f32>, OWNED>, Q_TILE>();
    for (var q = 0u; q < Q_TILE; q++) {
        largest[q] = HIDDEN;
    }
    for (var tile = first_key; tile <= last_position; tile += K_TILE) {
        let keys = min(K_TILE, last_position + 1u - tile);
        for (var i = local; i < Q_TILE * K_TILE; i += WORKGROUP) {
            scores[i] = score(i / K_TILE, tile + i % K_TILE, first_position, last_position, cache);
        }
        workgroupBarrier();
        var rescale = array<f32, Q_TILE>();
        for (var q = 0u; q < Q_TILE; q++) {
            var now = largest[q];
            for (var k = 0u; k < keys; k++) {
                now = max(now, scores[q * K_TILE + k]);
            }
            rescale[q] = exp(largest[q] - now);
            largest[q] = now;
        }
        workgroupBarrier();
        for (var i = local; i < Q_TILE * K_TILE; i += WORKGROUP) {
            let seen = scores[i] > HIDDEN;
            scores[i] = select(0.0, exp(scores[i] - largest[i / K_TILE]), seen);
        }
        workgroupBarrier();
        for (var q = 0u; q < Q_TILE; q++) {
            total[q] *= rescale[q];
            for (var own = 0u; own < OWNED; own++) {
                sums[q][own] *= rescale[q];
            }
        }
        for (var k = 0u; k < keys; k++) {
            let value = (cache + (tile + k) % CAPACITY) * PAIRS;
            for (var q = 0u; q < Q_TILE; q++) {
                total[q] += scores[q * K_TILE + k];
            }
            for (var own = 0u; own < OWNED; own++) {
                let pair = local + own * WORKGROUP;
                if pair < PAIRS {
                    let v = unpack_pair(v_cache[value + pair]);
                    for (var q = 0u; q < Q_TILE; q++) {
                        sums[q][own] += scores[q * K_TILE + k] * v;
                    }
                }
            }
        }
        workgroupBarrier();
    }
    for (var q = 0u; q < row_count; q++) {
        for (var own = 0u; own < OWNED; own++) {
            let pair = local + own * WORKGROUP;
            if pair < PAIRS {
                let at = (first_row + q) * OUT_STRIDE + group.y * D + pair * 2u;
                out[at] = sums[q][own].x / total[q];
                out[at + 1u] = sums[q][own].y / total[q];
            }
        }
    }
}

// The score q · k. It is HIDDEN where query q of the tile may not attend to the key.
fn score(q: u32, key: u32, first_position: u32, last_position: u32, cache: u32) -> f32 {
    let position = min(first_position + q, last_position);
    let past_window = WINDOW > 0u && key + WINDOW <= position;
    if key > position || past_window {
        return HIDDEN;
    }
    let at = (cache + key % CAPACITY) * PAIRS;
    var sum = vec2<f32>();
    for (var i = 0u; i < PAIRS; i++) {
        sum += q_tile[q * PAIRS + i] * unpack_pair(k_cache[at + i]);
    }
    return sum.x + sum.y;
}
