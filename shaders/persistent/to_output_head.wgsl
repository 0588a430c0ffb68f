//! needs: layer_norms, columns; constants PER, WORKGROUP

// The end of the persistent kernel after the last layer: the input of the output head.

// The weights to request for the end: none.
alias End = u32;

fn prepare_end(next: ptr<function, End>, group: u32, local: u32) {}

fn end(after: Columns, ready: Ready, next: ptr<function, End>, group: u32, local: u32) {
    if group > 0u {
        return;
    }
    store_stream(after, local);
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = (local + p * WORKGROUP) * 2u;
            y[i] = after.vec8s[p].lo * ready.nexts[p].lo * x_factor;
            y[i + 1u] = after.vec8s[p].hi * ready.nexts[p].hi * x_factor;
        }
    }
}
