//! needs: activations, columns, q8_vec8, reduce; constants EPS, N, PER, WORKGROUP

// The norms after attention and after the MLP.
// Every workgroup computes them whole, which takes less time than an exchange of partial norms.

// The norm weights that an invocation holds.
struct Ready {
    posts: array<Vec8, PER>,
    nexts: array<Vec8, PER>,
}

// The condition keeps these loads here. Without it compilers move them to their first use.
fn attention_ready(local: u32) -> Ready {
    var ready = Ready();
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = (local + p * WORKGROUP) * 2u;
            ready.posts[p] = Vec8(post_attention[i], post_attention[i + 1u]);
            ready.nexts[p] = Vec8(pre_feedforward[i], pre_feedforward[i + 1u]);
        }
    }
    return ready;
}

fn feedforward_ready(local: u32) -> Ready {
    var ready = Ready();
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = (local + p * WORKGROUP) * 2u;
            ready.posts[p] = Vec8(post_feedforward[i], post_feedforward[i + 1u]);
            ready.nexts[p] = Vec8(next_input[i], next_input[i + 1u]);
        }
    }
    return ready;
}

// Writes an invocation's values of a row as int8 to workgroup memory. Call in uniform control flow.
fn store_quants(p: u32, lo: vec4<f32>, hi: vec4<f32>, local: u32) {
    let q8 = quantize_vec8(lo, hi);
    let x = subgroupShuffleXor(q8.words.x, 1u);
    let words = vec4<u32>(q8.words, x, subgroupShuffleXor(q8.words.y, 1u));
    let i = local + p * WORKGROUP;
    if i < VEC8S && local % 2u == 0u {
        x_quants[i / 2u] = words;
    }
    if i < VEC8S && local % 4u == 0u {
        x_groups[i / 4u] = vec2<f32>(q8.group.x, 8.0 * q8.group.y);
    }
}

// Returns (before + norm(output) · post) · scalar, where output is the sublayer output.
// Writes that row times `next` as int8 to workgroup memory.
// Products of these int8 values times x_factor are the products of the normalized row.
fn add_rms_norm(
    branch_at: u32,
    scalar: f32,
    before: Columns,
    ready: Ready,
    local: u32,
) -> Columns {
    let branch = load_branch(branch_at, local);
    let branch_factor = inverseSqrt(sum_of_squares(branch, local) / f32(N) + EPS) * scalar;
    var after = Columns();
    var own = 0.0;
    for (var p = 0u; p < PER; p++) { // unrolled
        let added = branch.vec8s[p];
        let posts = ready.posts[p];
        let lo = before.vec8s[p].lo * scalar + added.lo * branch_factor * posts.lo;
        let hi = before.vec8s[p].hi * scalar + added.hi * branch_factor * posts.hi;
        after.vec8s[p] = Vec8(lo, hi);
        own += dot(lo, lo) + dot(hi, hi);
    }
    let subgroup_sum = subgroupAdd(own);
    if subgroup_lane == 0u {
        partial_sums[subgroup_index] = subgroup_sum;
    }
    for (var p = 0u; p < PER; p++) { // unrolled
        let nexts = ready.nexts[p];
        store_quants(p, after.vec8s[p].lo * nexts.lo, after.vec8s[p].hi * nexts.hi, local);
    }
    workgroupBarrier();
    var part = 0.0;
    for (var i = subgroup_lane; i < subgroup_count; i += subgroup_width) {
        part += partial_sums[i];
    }
    x_factor = inverseSqrt(subgroupAdd(part) / f32(N) + EPS);
    return after;
}
