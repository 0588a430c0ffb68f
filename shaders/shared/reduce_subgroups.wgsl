//! needs: constants SUBGROUPS, WORKGROUP

// Entry point and reductions with subgroup operations, for any subgroup size.
// Kernels use subgroup_sum for the invocations that share one matrix row.

var<private> subgroup_index: u32;
var<private> subgroup_count: u32;
var<private> subgroup_lane: u32;
var<private> subgroup_width: u32;
var<workgroup> partial_sums: array<f32, SUBGROUPS>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) size: u32,
) {
    subgroup_index = subgroup;
    subgroup_count = subgroups;
    subgroup_lane = lane;
    subgroup_width = size;
    kernel(group, groups, local);
}

// The sum over the workgroup, for every invocation. Call in uniform control flow.
fn group_sum(value: f32, local: u32) -> f32 {
    let sum = subgroupAdd(value);
    if subgroup_lane == 0u {
        partial_sums[subgroup_index] = sum;
    }
    workgroupBarrier();
    var part = 0.0;
    for (var i = subgroup_lane; i < subgroup_count; i += subgroup_width) {
        part += partial_sums[i];
    }
    let total = subgroupAdd(part);
    workgroupBarrier();
    return total;
}

// The sum over the subgroup, at least for its lane 0.
fn subgroup_sum(value: vec4<f32>, local: u32) -> vec4<f32> {
    return subgroupAdd(value);
}
