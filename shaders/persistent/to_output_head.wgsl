//! needs: layer_norms, columns, product; constants PER, WORKGROUP
// The end of the kernel after the last layer: what the output head takes.

// What comes after down, while its sums are made.
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
