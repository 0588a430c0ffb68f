//! needs: constants COUNT, N, WORKGROUP

// logits[output][id] = -inf for ids that must not be chosen.

@group(0) @binding(0) var<storage, read_write> logits: array<u32>;  // [outputs, N], as bits
@group(0) @binding(1) var<storage, read> ids: array<u32>;           // [COUNT], below N

// WGSL does not guarantee that floats have an infinity.
const MINUS_INFINITY: u32 = 0xff800000u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var i = local; i < COUNT; i += WORKGROUP) {
        logits[group.x * N + ids[i]] = MINUS_INFINITY;
    }
}
