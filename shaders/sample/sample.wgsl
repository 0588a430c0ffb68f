//! needs: draw, step, top_k; constants MOST, PARTS, WORKGROUP

// sampled[slot] = an id drawn at a temperature from the top_k largest logits.
// Of these it keeps the most likely ones that together have probability top_p.
// Of these it keeps the ones at least min_p times as likely as the first.
// The result is NO_TOKEN if a logit is NaN or +inf, or if none is finite.

// [outputs, PARTS · MOST], see top_k_parts
@group(0) @binding(0) var<storage, read> parts: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> draws: array<Draw>;           // [outputs]
// [outputs]: rows of the step
@group(0) @binding(2) var<storage, read> outputs: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<Row>;             // [rows]
@group(0) @binding(4) var<storage, read_write> sampled: array<u32>;    // [slots]

const NO_TOKEN: u32 = 0xffffffffu;

var<workgroup> ranked: array<vec2<u32>, MOST>;
var<workgroup> weights: array<f32, MOST>;

fn candidate(row: u32, i: u32) -> vec2<u32> {
    return parts[row * PARTS * MOST + i];
}

// Sorts `kept` into `ranked`, best first.
fn rank(k: u32, local: u32) {
    if local < k {
        let mine = kept[local];
        var place = 0u;
        for (var i = 0u; i < k; i++) {
            let other = kept[i];
            let better = other.x > mine.x || (other.x == mine.x && other.y < mine.y);
            // Unused places are equal to each other, so their index decides.
            let earlier = all(other == mine) && i < local;
            place += select(0u, 1u, better || earlier);
        }
        ranked[place] = mine;
    }
    workgroupBarrier();
}

// A single invocation adds the probabilities, in the same order as the host.
fn choose(draw: Draw) -> u32 {
    if ranked[0].x >= INFINITE_KEY || ranked[0].x <= MINUS_INFINITE_KEY {
        return NO_TOKEN;
    }
    var total = 0.0;
    for (var i = 0u; i < draw.top_k; i++) {
        total += weights[i];
    }
    let wanted = select(3.4e38, draw.top_p * total, draw.top_p < 1.0);
    var count = 0u;
    var sum = 0.0;
    while count < draw.top_k && (count == 0u || (sum < wanted && weights[count] >= draw.min_p)) {
        sum += weights[count];
        count++;
    }
    let point = draw.point * sum;
    var id = ranked[0].y;
    var before = 0.0;
    for (var i = 0u; i < count && before <= point; i++) {
        if weights[i] > 0.0 {
            id = ranked[i].y;
        }
        before += weights[i];
    }
    return id;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let draw = draws[group.x];
    store_best(group.x, 0u, PARTS * draw.top_k, draw.top_k, local);
    rank(draw.top_k, local);
    // Quarters of logits, because the difference of two quarters is never infinite.
    // Without the barriers some drivers compute a quarter of the difference instead.
    if local < draw.top_k {
        weights[local] = 0.25 * logit_of(ranked[local].x);
    }
    workgroupBarrier();
    let largest = weights[0];
    let quarter = weights[min(local, draw.top_k - 1u)];
    workgroupBarrier();
    if local < draw.top_k {
        // A much less likely token has a probability of practically zero.
        let exponent = max((quarter - largest) / draw.quarter_temperature, -200.0);
        weights[local] = select(0.0, exp(exponent), ranked[local].x > MINUS_INFINITE_KEY);
    }
    workgroupBarrier();
    if local == 0u {
        sampled[rows[outputs[group.x]].slot] = choose(draw);
    }
}
