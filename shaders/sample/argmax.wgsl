//! needs: argmax_tree, step; constants N, PARTS, WORKGROUP

// sampled[slot] = the id of the largest logit. Of equal logits it is the lowest id.

// [outputs, PARTS], see argmax_parts
@group(0) @binding(0) var<storage, read> parts: array<vec2<u32>>;
// [outputs]: rows of the step
@group(0) @binding(1) var<storage, read> outputs: array<u32>;
@group(0) @binding(2) var<storage, read> rows: array<Row>;             // [rows]
@group(0) @binding(3) var<storage, read_write> sampled: array<u32>;    // [slots]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Each invocation has one part.
    let part = parts[group.x * PARTS + local];
    find_best(bitcast<f32>(part.x), part.y, local);
    if local == 0u {
        // There is no id only if every logit is NaN.
        sampled[rows[outputs[group.x]].slot] = min(best_ids[0], N - 1u);
    }
}
