//! needs: epilogue, key_range, step; constants D, EPILOGUE_COLS, N_HEADS, PARTS, WORKGROUP

// Combines the partial outputs of sdpa_decode for one head. LANES invocations share four dims.

// [rows, N_HEADS, PARTS, D / 4]
@group(0) @binding(0) var<storage, read> partial_outputs: array<vec4<f32>>;
// [rows, N_HEADS, PARTS]: maximum, sum
@group(0) @binding(1) var<storage, read> softmax_stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read> rows: array<Row>;          // [rows]

const VEC4S: u32 = D / 4u;
const LANES: u32 = WORKGROUP / VEC4S;
const AHEAD: u32 = 8u;
var<workgroup> maxima: array<f32, PARTS>;
var<workgroup> weights: array<f32, PARTS>;
var<workgroup> totals: array<f32, PARTS>;
var<workgroup> pool: array<vec4<f32>, max((LANES - 1u) * VEC4S, 1u)>; // of all lanes but the first

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = (group.x * N_HEADS + group.y) * PARTS;
    let parts = part_count(rows[group.x].position);
    var norm = vec2<f32>();
    if local < parts {
        norm = softmax_stats[first + local];
        maxima[local] = norm.x;
    }
    workgroupBarrier();
    if local < parts {
        var largest = norm.x;
        for (var part = 0u; part < parts; part++) {
            largest = max(largest, maxima[part]);
        }
        let weight = exp(norm.x - largest);
        weights[local] = weight;
        totals[local] = weight * norm.y;
    }
    workgroupBarrier();

    let i4 = local % VEC4S;
    let lane = local / VEC4S;
    var sum = vec4<f32>();
    var total = 0.0;
    if lane < LANES {
        for (var at = lane; at < parts; at += AHEAD * LANES) {
            var held = array<vec4<f32>, AHEAD>();
            for (var j = 0u; j < AHEAD; j++) { // unrolled
                held[j] = partial_outputs[(first + min(at + j * LANES, parts - 1u)) * VEC4S + i4];
            }
            for (var j = 0u; j < AHEAD; j++) { // unrolled
                let part = at + j * LANES;
                sum += select(0.0, weights[min(part, parts - 1u)], part < parts) * held[j];
            }
        }
        for (var part = 0u; part < parts; part++) {
            total += totals[part];
        }
    }
    if LANES > 1u {
        if lane > 0u && lane < LANES {
            pool[local - VEC4S] = sum;
        }
        workgroupBarrier();
        if lane == 0u {
            for (var other = 1u; other < LANES; other++) {
                sum += pool[(other - 1u) * VEC4S + i4];
            }
        }
    }
    let inside = lane == 0u;
    // Columns past the head's end belong to the next head. This workgroup must not write them.
    epilogue(
        group.x,
        select(EPILOGUE_COLS, group.y * VEC4S + i4, inside),
        select(vec4<f32>(), sum / total, inside),
        local,
    );
}
