//! needs: constants WORKGROUP
// Entry point and reductions through workgroup memory, for devices without subgroup operations.
// A "team" is the whole workgroup.

const team_index: u32 = 0u;
const team_count: u32 = 1u;
const team_size: u32 = WORKGROUP;
var<private> team_lane: u32;
var<workgroup> partial_sums: array<vec4<f32>, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    team_lane = local;
    kernel(group, groups, local);
}

// Sum over the team, known to every invocation. Call in uniform control flow.
fn team_sum(value: vec4<f32>, local: u32) -> vec4<f32> {
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

// Sum over the workgroup, known to every invocation. Call in uniform control flow.
fn group_sum(value: f32, local: u32) -> f32 {
    return team_sum(vec4<f32>(value), local).x;
}
