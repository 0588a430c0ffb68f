//! needs: layer_norms, columns, product; constants PER, WORKGROUP

// The end of the persistent kernel after the last layer: the input of the output head.

// Requests what follows the down projection while its sums are computed.
fn prepare_end(
    ready: ptr<function, Ready>,
    qkv: ptr<function, Held>,
    group: u32,
    local: u32,
) {
    *ready = feedforward_ready(local);
}

fn end(after: Columns, ready: Ready, qkv: ptr<function, Held>, group: u32, local: u32) {
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
