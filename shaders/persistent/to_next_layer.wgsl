//! needs: layer_norms, columns, product, matrix_product<qkv>; constants QKV_BINDING

// The end of a persistent kernel between two layers: queries, keys and values of the next layer.

@group(0) @binding(QKV_BINDING) var<storage, read> qkv_data: array<vec4<u32>>;
@group(0) @binding(QKV_BINDING + 1) var<storage, read> qkv_scales: array<qkv_ScaleUnit>;

// The weights to request for the end.
alias End = qkv_Held;

fn prepare_end(next: ptr<function, End>, group: u32, local: u32) {
    qkv_begin(next, group, 0u, local);
}

alias qkv_Next = qkv_Held;

// Nothing follows.
fn qkv_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, qkv_Held>,
    group: u32,
    local: u32,
) {}

fn qkv_store(first: u32, count: u32, local: u32) {
    if local < count * 4u {
        y[first * 4u + local] = row_sums4(local * 4u) * x_factor;
    }
}

fn end(after: Columns, ready: Ready, qkv: ptr<function, End>, group: u32, local: u32) {
    if group == 0u {
        store_stream(after, local);
    }
    var columns = after;
    var norms = ready;
    var none = qkv_Held();
    qkv_multiply(qkv, &columns, &norms, &none, group, local);
}
