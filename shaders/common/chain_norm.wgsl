// What the norm needs besides the branch: there before others are waited for. What lies past the end is read as the last column
// and counts for nothing.
fn NAME_ready(local: u32) -> Ready {
    var ready = Ready();
    for (var p = 0u; p < PER; p++) { // unrolled
        let held = min(local + p * WORKGROUP, FOURS - 1u);
        ready.values[p] = FROM[held];
        ready.posts[p] = POST[held];
        ready.nexts[p] = NEXT[held];
    }
    return ready;
}

// TO = (FROM + norm(branch) · POST) · SCALAR, and norm(TO) · NEXT as int8 in workgroup memory. Every workgroup does all of it,
// which is less than to wait for one another; the first one writes TO.
fn NAME_norm(ready: Ready, group: u32, local: u32) {
    var branches = array<vec4<f32>, PER>();
    var values = array<vec4<f32>, PER>();
    var squares = 0.0;
    for (var p = 0u; p < PER; p++) { // unrolled
        let i = local + p * WORKGROUP;
        let held = min(i, FOURS - 1u);
        var sum = branch[held];
        for (var part = 1u; part < SPLITS; part++) {
            sum += branch[part * FOURS + held];
        }
        branches[p] = select(vec4<f32>(), sum, i < FOURS);
        squares += dot(branches[p], branches[p]);
    }
    let branch_factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    squares = 0.0;
    for (var p = 0u; p < PER; p++) { // unrolled
        let i = local + p * WORKGROUP;
        let x = (ready.values[p] + branches[p] * branch_factor * ready.posts[p]) * SCALAR;
        values[p] = select(vec4<f32>(), x, i < FOURS);
        squares += dot(values[p], values[p]);
        if group == 0u && i < FOURS {
            TO[i] = values[p];
        }
    }
    let factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    for (var p = 0u; p < PER; p++) { // unrolled
        let i = local + p * WORKGROUP;
        let q8 = quantize_lanes(values[p] * factor * ready.nexts[p]);
        let words = four_words(q8.word);
        if i < FOURS && local % 4u == 0u {
            x_quants[i / 4u] = words;
        }
        if i < FOURS && local % 8u == 0u {
            x_groups[i / 8u] = q8.group;
        }
    }
    workgroupBarrier();
}
