//! needs: argmax_tree; constants N, PARTS, WORKGROUP

// The largest logit of each part of a row, and its id.

@group(0) @binding(0) var<storage, read> logits: array<f32>;             // [outputs, N]
// [outputs, PARTS]: bits of the value, id
@group(0) @binding(1) var<storage, read_write> parts: array<vec2<u32>>;

const PART: u32 = (N + PARTS - 1u) / PARTS;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let base = group.x * N;
    var best = -3.4e38;
    var id = 0xffffffffu;
    let end = min((group.y + 1u) * PART, N);
    for (var i = group.y * PART + local; i < end; i += WORKGROUP) {
        let value = logits[base + i];
        if value > best || (id == 0xffffffffu && value == value) {
            best = value;
            id = i;
        }
    }
    find_best(best, id, local);
    if local == 0u {
        parts[group.x * PARTS + group.y] = vec2<u32>(bitcast<u32>(best_values[0]), best_ids[0]);
    }
}
