//! needs: exchange, reduce; constants N, PER, SUBGROUPS, WORKGROUP

// An invocation's columns of a row, and rows that all workgroups read.

const VEC8S: u32 = N / 8u;

struct Vec8 {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// Every WORKGROUP-th vec8 of a row. Columns past the end are 0.
struct Columns {
    vec8s: array<Vec8, PER>,
}

var<workgroup> branch_sums: array<f32, SUBGROUPS>;

fn is_column(p: u32, local: u32) -> bool {
    return local + p * WORKGROUP < VEC8S;
}

// The values of a sublayer output, as soon as they have been written. All are requested at once.
fn load_branch(branch: u32, local: u32) -> Columns {
    var found = Columns();
    let at = own_set() + branch;
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = at + (local + p * WORKGROUP) * 2u;
            found.vec8s[p].lo = bitcast<vec4<f32>>(exchange[i]);
            found.vec8s[p].hi = bitcast<vec4<f32>>(exchange[i + 1u]);
        }
    }
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = at + (local + p * WORKGROUP) * 2u;
            let lo = spin_load(bitcast<vec4<u32>>(found.vec8s[p].lo), i);
            found.vec8s[p].lo = bitcast<vec4<f32>>(lo);
            let hi = spin_load(bitcast<vec4<u32>>(found.vec8s[p].hi), i + 1u);
            found.vec8s[p].hi = bitcast<vec4<f32>>(hi);
        }
    }
    return found;
}

fn sum_of_squares(values: Columns, local: u32) -> f32 {
    var own = 0.0;
    for (var p = 0u; p < PER; p++) { // unrolled
        let vec8 = values.vec8s[p];
        own += dot(vec8.lo, vec8.lo) + dot(vec8.hi, vec8.hi);
    }
    let subgroup_sum = subgroupAdd(own);
    if subgroup_lane == 0u {
        branch_sums[subgroup_index] = subgroup_sum;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = subgroup_lane; i < subgroup_count; i += subgroup_width) {
        sum += branch_sums[i];
    }
    return subgroupAdd(sum);
}

fn load_stream(local: u32) -> Columns {
    var found = Columns();
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = (local + p * WORKGROUP) * 2u;
            found.vec8s[p] = Vec8(stream[i], stream[i + 1u]);
        }
    }
    return found;
}

fn store_stream(values: Columns, local: u32) {
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = (local + p * WORKGROUP) * 2u;
            stream[i] = values.vec8s[p].lo;
            stream[i + 1u] = values.vec8s[p].hi;
        }
    }
}
