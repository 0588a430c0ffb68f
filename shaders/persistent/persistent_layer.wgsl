//! needs: activations, columns, exchange, layer_end, layer_norms, gelu, join_partial_outputs,
//! matrix_product<o>, matrix_product<gate_up>, matrix_product<down>, product, q8_subgroup, reduce,
//! step; constants DOWN_GROUPS, N, O_GROUPS

// Computes one row from the partial outputs of attention to q, k and v of the next layer.
// It combines these outputs and then computes o_proj, norms, gate and up with GELU, down and norms.
// A per-layer input follows, if there is one.
// The last step is qkv of the next layer. After the last layer there is no such step.
// One dispatch replaces seven, or twelve: its workgroups exchange results as in exchange.wgsl.
// While they wait, they request their next weights.

@group(0) @binding(0) var<storage, read> o_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> o_scales: array<o_ScaleUnit>;
@group(0) @binding(2) var<storage, read> gate_up_data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> gate_up_scales: array<gate_up_ScaleUnit>;
@group(0) @binding(4) var<storage, read> down_data: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> down_scales: array<down_ScaleUnit>;
// The results of sdpa_decode: [N_HEADS, PARTS, D / 4], and [N_HEADS, PARTS] of maximum and sum.
@group(0) @binding(6) var<storage, read> partial_outputs: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> softmax_stats: array<vec2<f32>>;
@group(0) @binding(8) var<storage, read> rows: array<Row>; // [1]
@group(0) @binding(9) var<storage, read> post_attention: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read> pre_feedforward: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read> post_feedforward: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read> next_input: array<vec4<f32>>;
// The residual stream [N / 4], which this kernel updates.
@group(0) @binding(13) var<storage, read_write> stream: array<vec4<f32>>;
// [3, SET_VEC4S]
@group(0) @binding(14) @coherent var<storage, read_write> exchange: array<vec4<u32>>;
// q, k and v, or the normalized hidden state.
@group(0) @binding(15) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(16) @coherent var<storage, read_write> fault: atomic<u32>;
// The layer scalar, this dispatch's set of exchange words, the next dispatch's set, 0.
@group(0) @binding(17) var<uniform> layer: vec4<f32>;

// Parts of a set. First both sublayer outputs, [N / 4] each.
// Then the MLP's hidden state and attention's output as int8, 16 in each vec4.
// Each of these two ends with scale and scale · sum, for two groups in each vec4.
const ATTENTION_BRANCH: u32 = 0u;
const FEEDFORWARD_BRANCH: u32 = N / 4u;
const HIDDEN: u32 = N / 2u;
const ATTENTION: u32 = HIDDEN + DOWN_GROUPS * 5u / 2u;

fn row_sums4(at: u32) -> vec4<f32> {
    return vec4<f32>(row_sums[at], row_sums[at + 1u], row_sums[at + 2u], row_sums[at + 3u]);
}

fn store_rows(at: u32, count: u32, local: u32) {
    if local < count * 4u {
        exchange[own_set() + at + local] = present(row_sums4(local * 4u));
    }
}

// o_proj computes the first sublayer output.
alias o_Next = gate_up_Held;

fn o_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, gate_up_Held>,
    group: u32,
    local: u32,
) {
    *before = load_stream(local);
    *ready = attention_ready(local);
    gate_up_begin(next, group, 0u, local);
}

fn o_store(first: u32, count: u32, local: u32) {
    store_rows(ATTENTION_BRANCH + first * 4u, count, local);
}

// gate and up compute the MLP's hidden state.
alias gate_up_Next = down_Held;

fn gate_up_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, down_Held>,
    group: u32,
    local: u32,
) {
    down_begin(next, group, 0u, local);
}

// Stores 32 results for each unit.
fn gate_up_store(first: u32, count: u32, local: u32) {
    if local < count * 8u {
        let gates = row_sums4(local * 4u) * x_factor;
        let ups = row_sums4((count * 8u + local) * 4u) * x_factor;
        var values = vec4<f32>();
        for (var i = 0u; i < 4u; i++) { // unrolled
            values[i] = gelu_tanh(gates[i]) * ups[i];
        }
        let q8 = quantize_vec4(values);
        let words = gather_words(q8.word);
        store_group(HIDDEN, DOWN_GROUPS, first + local / 8u, words, q8.group, local % 8u);
    }
}

// down_proj computes the second sublayer output.
fn down_store(first: u32, count: u32, local: u32) {
    store_rows(FEEDFORWARD_BRANCH + first * 4u, count, local);
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let first = group.x;
    let has_attention = join_attention(first);
    var o = o_Held();
    o_begin(&o, first, 0u, local);
    clear_next_set(first, local);
    workgroupBarrier();
    if !has_attention {
        load_vector(ATTENTION, O_GROUPS, local);
    }
    var before = Columns();
    var ready = Ready();
    var gate_up = gate_up_Held();
    o_multiply(&o, &before, &ready, &gate_up, first, local);

    before = add_rms_norm(ATTENTION_BRANCH, 1.0, before, ready, local);
    var down = down_Held();
    gate_up_multiply(&gate_up, &before, &ready, &down, first, local);

    load_vector(HIDDEN, DOWN_GROUPS, local);
    var next = down_Next();
    down_multiply(&down, &before, &ready, &next, first, local);
    finish_layer(before, ready, &next, first, local);
}
