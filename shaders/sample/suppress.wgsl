//! needs: constants COUNT, N, WORKGROUP
// logits[output][id] = -inf for ids that are never chosen.

@group(0) @binding(0) var<storage, read_write> logits: array<u32>;  // [outputs, N], their bits
@group(0) @binding(1) var<storage, read> ids: array<u32>;           // [COUNT], below N

// WGSL's own floats need not have an infinity.
const MINUS_INFINITY: u32 = 0xff800000u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var i = local; i < COUNT; i += WORKGROUP) {
        logits[group.x * N + ids[i]] = MINUS_INFINITY;
    }
}
