//! needs: draw, top_k; constants MOST, N, PARTS, WORKGROUP

// The top_k largest logits of each part of a row, and their ids.

@group(0) @binding(0) var<storage, read> logits: array<u32>;             // [outputs, N], as bits
@group(0) @binding(1) var<storage, read> draws: array<Draw>;             // [outputs]
// [outputs, PARTS · MOST]: PARTS · top_k candidates
@group(0) @binding(2) var<storage, read_write> parts: array<vec2<u32>>;

const PART: u32 = (N + PARTS - 1u) / PARTS;

fn candidate(row: u32, i: u32) -> vec2<u32> {
    return vec2<u32>(sort_key(logits[row * N + i]), i);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let k = draws[group.x].top_k;
    let first = min(group.y * PART, N);
    store_best(group.x, first, min(first + PART, N), k, local);
    if local < k {
        parts[group.x * PARTS * MOST + group.y * k + local] = kept[local];
    }
}
