//! needs: activations, columns, ending, exchange, gelu, layer_norms, matrix_product<input_gate>,
//! matrix_product<input_projection>, q8_subgroup; constants EPS, INPUT_PROJECTION_GROUPS, N,
//! O_GROUPS, PER, WORKGROUP

// The end of a layer with a per-layer input, of which all layers' vectors are `vectors`:
//   x = x + rms_norm(down) · post_feedforward
//   y = gelu(input_gate(x)) · vector
//   x = (x + rms_norm(input_projection(y)) · post_input) · scalar

@group(0) @binding(18) var<storage, read> input_gate_data: array<vec4<u32>>;
@group(0) @binding(19) var<storage, read> input_gate_scales: array<input_gate_ScaleUnit>;
@group(0) @binding(20) var<storage, read> input_projection_data: array<vec4<u32>>;
@group(0) @binding(21) var<storage, read> input_projection_scales: array<projection_ScaleUnit>;
@group(0) @binding(22) var<storage, read> vectors: array<vec4<f32>>; // [layers · SIZE / 4]
@group(0) @binding(23) var<storage, read> post_input: array<vec4<f32>>; // [N / 4]
// x: the first column of the layer's vector
@group(0) @binding(24) var<uniform> place: vec4<u32>;

alias projection_ScaleUnit = input_projection_ScaleUnit;
const SIZE: u32 = INPUT_PROJECTION_GROUPS * 32u;
// Parts of a set, after those of all layers: results of the gate, and the third sublayer output.
const INPUT_GATE: u32 = ATTENTION + O_GROUPS * 5u / 2u;
const INPUT_BRANCH: u32 = INPUT_GATE + SIZE / 4u;

alias down_Next = input_gate_Held;

fn down_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, input_gate_Held>,
    group: u32,
    local: u32,
) {
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = (local + p * WORKGROUP) * 2u;
            (*ready).posts[p] = Vec8(post_feedforward[i], post_feedforward[i + 1u]);
        }
    }
    input_gate_begin(next, group, 0u, local);
}

alias input_gate_Next = input_projection_Held;

fn input_gate_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, input_projection_Held>,
    group: u32,
    local: u32,
) {
    input_projection_begin(next, group, 0u, local);
    *ready = input_ready(local);
}

fn input_gate_store(first: u32, count: u32, local: u32) {
    store_rows(INPUT_GATE + first * 4u, count, local);
}

alias input_projection_Next = End;

// What follows is requested already.
fn input_projection_prepare_next(
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, End>,
    group: u32,
    local: u32,
) {}

fn input_projection_store(first: u32, count: u32, local: u32) {
    store_rows(INPUT_BRANCH + first * 4u, count, local);
}

// The norm weights that follow the per-layer input.
fn input_ready(local: u32) -> Ready {
    var ready = Ready();
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let i = (local + p * WORKGROUP) * 2u;
            ready.posts[p] = Vec8(post_input[i], post_input[i + 1u]);
            ready.nexts[p] = Vec8(next_input[i], next_input[i + 1u]);
        }
    }
    return ready;
}

// Returns x after the MLP, which it writes as int8 to workgroup memory.
fn add_feedforward(before: Columns, ready: Ready, local: u32) -> Columns {
    let branch = load_branch(FEEDFORWARD_BRANCH, local);
    let factor = inverseSqrt(sum_of_squares(branch, local) / f32(N) + EPS);
    var after = Columns();
    for (var p = 0u; p < PER; p++) { // unrolled
        let added = branch.vec8s[p];
        let posts = ready.posts[p];
        let lo = before.vec8s[p].lo + added.lo * factor * posts.lo;
        let hi = before.vec8s[p].hi + added.hi * factor * posts.hi;
        after.vec8s[p] = Vec8(lo, hi);
        store_quants(p, lo, hi, local);
    }
    workgroupBarrier();
    return after;
}

// Reads the gate's results, as soon as they have been written.
// Writes gelu(gate) · vector as int8 to workgroup memory. Four lanes have a vector of x_quants.
fn load_gated(vector: vec4<f32>, local: u32) {
    let at = own_set() + INPUT_GATE + local;
    var gates = vec4<f32>();
    if local < SIZE / 4u {
        gates = bitcast<vec4<f32>>(spin_load(exchange[at], at));
    }
    var values = vec4<f32>();
    for (var i = 0u; i < 4u; i++) { // unrolled
        values[i] = gelu_tanh(gates[i]) * vector[i];
    }
    let q8 = quantize_vec4(values);
    let words = gather_words(q8.word);
    if local < SIZE / 4u {
        keep_group(local / 8u, words, q8.group, local % 8u);
    }
    workgroupBarrier();
}

fn finish_layer(
    before: Columns,
    ready: Ready,
    gate: ptr<function, input_gate_Held>,
    group: u32,
    local: u32,
) {
    var x = add_feedforward(before, ready, local);
    var vector = vec4<f32>();
    if local < SIZE / 4u {
        vector = vectors[place.x / 4u + local];
    }
    var norms = Ready();
    var projection = input_projection_Held();
    input_gate_multiply(gate, &x, &norms, &projection, group, local);

    // Only a few workgroups have results of the gate. The others request what follows meanwhile.
    var next = End();
    prepare_end(&next, group, local);
    load_gated(vector, local);
    input_projection_multiply(&projection, &x, &norms, &next, group, local);
    let after = add_rms_norm(INPUT_BRANCH, layer.x, x, norms, local);
    end(after, norms, &next, group, local);
}
