//! needs: layer_norms, columns, product, matrix_product<q>, matrix_product<k>, matrix_product<v>;
//! constants K_Y_OFFSET, QKV_BINDING, Q_Y_OFFSET, V_Y_OFFSET

// The end of a persistent kernel between two layers: queries, keys and values of the next layer.
// Their matrices have different formats.

@group(0) @binding(QKV_BINDING) var<storage, read> q_data: array<vec4<u32>>;
@group(0) @binding(QKV_BINDING + 1) var<storage, read> q_scales: array<q_ScaleUnit>;
@group(0) @binding(QKV_BINDING + 2) var<storage, read> k_data: array<vec4<u32>>;
@group(0) @binding(QKV_BINDING + 3) var<storage, read> k_scales: array<k_ScaleUnit>;
@group(0) @binding(QKV_BINDING + 4) var<storage, read> v_data: array<vec4<u32>>;
@group(0) @binding(QKV_BINDING + 5) var<storage, read> v_scales: array<v_ScaleUnit>;

// The weights to request for the end.
alias End = q_Held;

fn prepare_end(next: ptr<function, End>, group: u32, local: u32) {
    q_begin(next, group, 0u, local);
}

fn store_heads(at: u32, count: u32, local: u32) {
    if local < count * 4u {
        y[at + local] = row_sums4(local * 4u) * x_factor;
    }
}

alias q_Next = k_Held;

fn q_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, k_Held>,
    group: u32,
    local: u32,
) {
    k_begin(next, group, 0u, local);
}

fn q_store(first: u32, count: u32, local: u32) {
    store_heads(Q_Y_OFFSET / 4u + first * 4u, count, local);
}

alias k_Next = v_Held;

fn k_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, v_Held>,
    group: u32,
    local: u32,
) {
    v_begin(next, group, 0u, local);
}

fn k_store(first: u32, count: u32, local: u32) {
    store_heads(K_Y_OFFSET / 4u + first * 4u, count, local);
}

// Nothing follows.
alias v_Next = v_Held;

fn v_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, v_Held>,
    group: u32,
    local: u32,
) {}

fn v_store(first: u32, count: u32, local: u32) {
    store_heads(V_Y_OFFSET / 4u + first * 4u, count, local);
}

fn end(after: Columns, ready: Ready, q: ptr<function, End>, group: u32, local: u32) {
    if group == 0u {
        store_stream(after, local);
    }
    var columns = after;
    var norms = ready;
    var k = k_Held();
    q_multiply(q, &columns, &norms, &k, group, local);
    var v = v_Held();
    k_multiply(&k, &columns, &norms, &v, group, local);
    var none = v_Held();
    v_multiply(&v, &columns, &norms, &none, group, local);
}
