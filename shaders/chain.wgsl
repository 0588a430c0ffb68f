// One row from attention's output in a layer to q, k and v of the next one: o_proj, norms, gate and up with GELU, down, norms,
// qkv. One dispatch instead of six: its workgroups wait for one another (grid_barrier.wgsl) and fetch their next weights
// meanwhile.

@group(0) @binding(0) var<storage, read> o_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> o_scales: array<u32>;
@group(0) @binding(2) var<storage, read> gate_up_data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> gate_up_scales: array<u32>;
@group(0) @binding(4) var<storage, read> down_data: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> down_scales: array<u32>;
@group(0) @binding(6) var<storage, read> qkv_data: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> qkv_scales: array<u32>;
@group(0) @binding(8) var<storage, read> attention_quants: array<vec4<u32>>;  // int8, 16 in each
@group(0) @binding(9) var<storage, read> attention_groups: array<vec2<f32>>;  // scale, scale · sum
@group(0) @binding(10) var<storage, read> post_attention: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read> pre_feedforward: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read> post_feedforward: array<vec4<f32>>;
@group(0) @binding(13) var<storage, read> next_input: array<vec4<f32>>;
@group(0) @binding(14) @coherent var<storage, read_write> stream: array<vec4<f32>>;  // [N / 4], the residual stream, updated
@group(0) @binding(15) @coherent var<storage, read_write> middle: array<vec4<f32>>;  // [N / 4], the stream between the branches
@group(0) @binding(16) @coherent var<storage, read_write> branch: array<vec4<f32>>;  // [parts, N / 4]
@group(0) @binding(17) @coherent var<storage, read_write> hidden_quants: array<vec4<u32>>;
@group(0) @binding(18) @coherent var<storage, read_write> hidden_groups: array<vec2<f32>>;
@group(0) @binding(19) var<storage, read_write> y: array<vec4<f32>>;                 // q, k, v
@group(0) @binding(20) @coherent var<storage, read_write> sync: Sync;
@group(0) @binding(21) var<uniform> layer: vec4<f32>;                                // x: scalar

const FOURS: u32 = N / 4u;
// Parts of a row's columns, where 16, 32 or 64 rows share a workgroup.
const PARTS_16: u32 = WORKGROUP / 16u;
const PARTS_32: u32 = WORKGROUP / 32u;
const PARTS_64: u32 = WORKGROUP / 64u;

// What an invocation holds for a norm.
struct Ready {
    values: array<vec4<f32>, PER>,
    posts: array<vec4<f32>, PER>,
    nexts: array<vec4<f32>, PER>,
}

// 32 activations.
struct Activations {
    lo: vec4<u32>,
    hi: vec4<u32>,
    group: vec2<f32>,
}

var<workgroup> x_quants: array<vec4<u32>, N / 16u>;
var<workgroup> x_groups: array<vec2<f32>, N / 32u>;
var<workgroup> unit_sums: array<f32, 2u * WORKGROUP>;
var<workgroup> gated: array<f32, 64>;
var<private> turn: u32;

fn o_x(g: u32) -> Activations {
    return Activations(attention_quants[g * 2u], attention_quants[g * 2u + 1u], attention_groups[g]);
}

fn gate_up_x(g: u32) -> Activations {
    return Activations(x_quants[g * 2u], x_quants[g * 2u + 1u], x_groups[g]);
}

fn down_x(g: u32) -> Activations {
    return Activations(hidden_quants[g * 2u], hidden_quants[g * 2u + 1u], hidden_groups[g]);
}

fn qkv_x(g: u32) -> Activations {
    return gate_up_x(g);
}

fn group_product(quants: vec4<u32>, scale: f32, x: Activations) -> f32 {
    let even = quants & vec4<u32>(0x0f0f0f0fu);
    let odd = (quants >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    var sum = dot4I8Packed(even.x, x.lo.x) + dot4I8Packed(odd.x, x.lo.y);
    sum += dot4I8Packed(even.y, x.lo.z) + dot4I8Packed(odd.y, x.lo.w);
    sum += dot4I8Packed(even.z, x.hi.x) + dot4I8Packed(odd.z, x.hi.y);
    sum += dot4I8Packed(even.w, x.hi.z) + dot4I8Packed(odd.w, x.hi.w);
    // Zero lies at 8.
    return scale * (x.group.x * f32(sum) - 8.0 * x.group.y);
}

// For invocation n < rows the sum of all `value`s of invocations n, n + rows…
fn unit_sum(value: f32, rows: u32, local: u32) -> f32 {
    // Two halves in turn: who is late still reads the other one.
    let base = turn * WORKGROUP;
    turn = 1u - turn;
    unit_sums[base + local] = value;
    workgroupBarrier();
    var sum = 0.0;
    if local < rows {
        for (var at = local; at < WORKGROUP; at += rows) {
            sum += unit_sums[base + at];
        }
    }
    return sum;
}

// The values of four neighbours, for the first of them.
fn four_of(value: f32) -> vec4<f32> {
    return vec4<f32>(
        value,
        subgroupShuffleXor(value, 1u),
        subgroupShuffleXor(value, 2u),
        subgroupShuffleXor(value, 3u),
    );
}

fn four_words(word: u32) -> vec4<u32> {
    return vec4<u32>(word, subgroupShuffleXor(word, 1u), subgroupShuffleXor(word, 2u), subgroupShuffleXor(word, 3u));
}

// 32 results of the MLP's first half: as many rows of gate, and those of up that go with them.
fn gated_row(unit: u32, local: u32) -> u32 {
    return (local % 64u) / 32u * (gate_up_ROWS / 2u) + unit * 32u + local % 32u;
}

fn gated_unit(unit: u32, local: u32) {
    let part = gate_up_sum(gated_row(unit, local), local / 64u, gate_up_GROUPS, PARTS_64);
    let sum = unit_sum(part, 64u, local);
    if local < 64u {
        gated[local] = sum;
    }
    workgroupBarrier();
    var values = vec4<f32>();
    if local < 8u {
        for (var i = 0u; i < 4u; i++) {
            values[i] = gelu_tanh(gated[local * 4u + i]) * gated[32u + local * 4u + i];
        }
    }
    let q8 = quantize_lanes(values);
    let words = four_words(q8.word);
    if local < 8u && local % 4u == 0u {
        hidden_quants[unit * 2u + local / 4u] = words;
    }
    if local == 0u {
        hidden_groups[unit] = q8.group;
    }
}

// 32 rows of q, k or v.
fn qkv_unit(unit: u32, local: u32) {
    let row = min(unit * 32u + local % 32u, qkv_ROWS - 1u);
    let part = qkv_sum(row, local / 32u, qkv_GROUPS, PARTS_32);
    let four = four_of(unit_sum(part, 32u, local));
    if local < 32u && local % 4u == 0u && unit * 32u + local < qkv_ROWS {
        y[unit * 8u + local / 4u] = four;
    }
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let first = group.x;
    var seen = 0u;
    for (var unit = first; unit < o_UNITS; unit += WORKGROUPS) {
        o_unit(unit, local);
    }
    let attention = attention_ready(local);
    seen ^= gate_up_touch(gated_row(first, local), local / 64u, PARTS_64);
    grid_barrier(local);
    attention_norm(attention, first, local);
    for (var unit = first; unit < gate_up_ROWS / 64u; unit += WORKGROUPS) {
        gated_unit(unit, local);
    }
    seen ^= down_touch_unit(first, local);
    grid_barrier(local);
    for (var unit = first; unit < down_UNITS; unit += WORKGROUPS) {
        down_unit(unit, local);
    }
    // The stream between the branches was written before the last wait.
    let feedforward = feedforward_ready(local);
    seen ^= qkv_touch(first * 32u + local % 32u, local / 32u, PARTS_32);
    grid_barrier(local);
    feedforward_norm(feedforward, first, local);
    for (var unit = first; unit < (qkv_ROWS + 31u) / 32u; unit += WORKGROUPS) {
        qkv_unit(unit, local);
    }
    // So that no compiler leaves the fetching out.
    if seen == 0x9e3779b9u {
        atomicStore(&sync.sink, 1u);
    }
}
