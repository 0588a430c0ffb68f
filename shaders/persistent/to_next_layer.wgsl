//! needs: layer_norms, columns, product, product_qkv

// The end of a persistent kernel between two layers: queries, keys and values of the next layer.

// Requests what follows the down projection while its sums are computed.
fn prepare_end(
    ready: ptr<function, Ready>,
    qkv: ptr<function, Held>,
    group: u32,
    local: u32,
) {
    *ready = feedforward_ready(local);
    qkv_begin(qkv, group, 0u, local);
}

fn end(after: Columns, ready: Ready, qkv: ptr<function, Held>, group: u32, local: u32) {
    if group == 0u {
        store_stream(after, local);
    }
    qkv_product(qkv, group, local);
}
