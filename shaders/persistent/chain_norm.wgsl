// What the norm needs besides the branch and the stream.
fn NAME_ready(local: u32) -> Ready {
    var ready = Ready();
    for (var p = 0u; p < PER; p++) { // unrolled
        // The condition keeps the loads here: without one they move to where they are used.
        if is_column(p, local) {
            let eight = local + p * WORKGROUP;
            ready.posts[p] = Eight(POST[eight * 2u], POST[eight * 2u + 1u]);
            ready.nexts[p] = Eight(NEXT[eight * 2u], NEXT[eight * 2u + 1u]);
        }
    }
    return ready;
}

// (stream + norm(branch) · POST) · SCALAR, which is returned, and that · NEXT as int8 in workgroup
// memory, whose products are to be multiplied by x_factor: together that is the norm. Every
// workgroup does all of it, which is less than to wait for one another.
fn NAME_norm(before: Columns, ready: Ready, local: u32) -> Columns {
    let branch = branch_of_all(NAME_BRANCH, local);
    let branch_factor = inverseSqrt(squares_of_all(branch, local) / f32(N) + EPS) * SCALAR;
    var after = Columns();
    var own = 0.0;
    for (var p = 0u; p < PER; p++) { // unrolled
        let lo = before.eights[p].lo * SCALAR + branch.eights[p].lo * branch_factor * ready.posts[p].lo;
        let hi = before.eights[p].hi * SCALAR + branch.eights[p].hi * branch_factor * ready.posts[p].hi;
        after.eights[p] = Eight(lo, hi);
        own += dot(lo, lo) + dot(hi, hi);
    }
    let team = subgroupAdd(own);
    if team_lane == 0u {
        partial_sums[team_index] = team;
    }
    for (var p = 0u; p < PER; p++) { // unrolled
        let nexts = ready.nexts[p];
        let q8 = quantize_eight(after.eights[p].lo * nexts.lo, after.eights[p].hi * nexts.hi);
        let words = vec4<u32>(q8.words, subgroupShuffleXor(q8.words.x, 1u), subgroupShuffleXor(q8.words.y, 1u));
        let eight = local + p * WORKGROUP;
        if eight < EIGHTS && local % 2u == 0u {
            x_quants[eight / 2u] = words;
        }
        if eight < EIGHTS && local % 4u == 0u {
            x_groups[eight / 4u] = vec2<f32>(q8.group.x, 8.0 * q8.group.y);
        }
    }
    workgroupBarrier();
    var part = 0.0;
    for (var i = team_lane; i < team_count; i += team_size) {
        part += partial_sums[i];
    }
    x_factor = inverseSqrt(subgroupAdd(part) / f32(N) + EPS);
    return after;
}
