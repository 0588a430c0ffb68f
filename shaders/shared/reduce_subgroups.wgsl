//! needs: constants TEAMS, WORKGROUP
// Entry point and reductions through subgroup operations, for any subgroup size.
// A "team" is a subgroup: the invocations that share one matrix row.

var<private> team_index: u32;
var<private> team_count: u32;
var<private> team_lane: u32;
var<private> team_size: u32;
var<workgroup> partial_sums: array<f32, TEAMS>;

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
    team_index = subgroup;
    team_count = subgroups;
    team_lane = lane;
    team_size = size;
    kernel(group, groups, local);
}

// Sum over the workgroup, known to every invocation. Call in uniform control flow.
fn group_sum(value: f32, local: u32) -> f32 {
    let sum = subgroupAdd(value);
    if team_lane == 0u {
        partial_sums[team_index] = sum;
    }
    workgroupBarrier();
    var part = 0.0;
    for (var i = team_lane; i < team_count; i += team_size) {
        part += partial_sums[i];
    }
    let total = subgroupAdd(part);
    workgroupBarrier();
    return total;
}

// Sum over the team, known to its lane 0 at least.
fn team_sum(value: vec4<f32>, local: u32) -> vec4<f32> {
    return subgroupAdd(value);
}
