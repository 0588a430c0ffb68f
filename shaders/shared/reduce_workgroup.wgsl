//! needs: constants WORKGROUP

// Entry point and reductions with workgroup memory, for devices without subgroup operations.
// Here the whole workgroup is what kernels call a subgroup.

const subgroup_index: u32 = 0u;
const subgroup_count: u32 = 1u;
const subgroup_width: u32 = WORKGROUP;
var<private> subgroup_lane: u32;
var<workgroup> partial_sums: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    subgroup_lane = local;
    kernel(group, groups, local);
}

// The sum over that subgroup, for every invocation. Call in uniform control flow.
fn subgroup_sum(value: vec4<f32>, local: u32) -> vec4<f32> {
    partial_sums[local] = value;
    workgroupBarrier();
    for (var step = WORKGROUP / 2u; step > 0u; step >>= 1u) {
        if local < step {
            partial_sums[local] += partial_sums[local + step];
        }
        workgroupBarrier();
    }
    let total = partial_sums[0];
    workgroupBarrier();
    return total;
}

// The sum over the workgroup, for every invocation. Call in uniform control flow.
fn group_sum(value: f32, local: u32) -> f32 {
    return subgroup_sum(vec4<f32>(value), local).x;
}
