// Joins the parts that sdpa_decode made of one head's attention.

@group(0) @binding(0) var<storage, read> sums: array<vec2<f32>>;    // [rows, N_HEADS, PARTS, D / 2]
@group(0) @binding(1) var<storage, read> norms: array<vec2<f32>>;   // [rows, N_HEADS, PARTS]: maximum, sum
@group(0) @binding(2) var<storage, read> rows: array<Row>;          // [rows]

// Two neighbouring dims of all parts.
fn joined(first: u32, parts: u32, largest: f32, pair: u32) -> vec2<f32> {
    var sum = vec2<f32>();
    var total = 0.0;
    for (var part = 0u; part < parts; part++) {
        let norm = norms[first + part];
        let weight = exp(norm.x - largest);
        sum += weight * sums[(first + part) * PAIRS + pair];
        total += weight * norm.y;
    }
    return sum / total;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let position = rows[group.x].position;
    let first = (group.x * N_HEADS + group.y) * PARTS;
    var parts = 0u;
    var largest = -3.0e38;
    for (var part = 0u; part < PARTS; part++) {
        let keys = key_range(position, part);
        if keys.x >= keys.y {
            break;
        }
        largest = max(largest, norms[first + part].x);
        parts++;
    }
    finish(group, local, first, parts, largest);
}
