// The end of a chained kernel after the last layer: what the head takes.

fn conclude(down: ptr<function, down_Held>, ready: ptr<function, Ready>, before: Columns, first: u32, local: u32) {
    down_product(down, ready, first, local);
    let after = feedforward_norm(before, *ready, local);
    if first > 0u {
        return;
    }
    keep_stream(after, local);
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let eight = local + p * WORKGROUP;
            y[eight * 2u] = after.eights[p].lo * (*ready).nexts[p].lo * x_factor;
            y[eight * 2u + 1u] = after.eights[p].hi * (*ready).nexts[p].hi * x_factor;
        }
    }
}
