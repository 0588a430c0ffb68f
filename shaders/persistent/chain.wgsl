// One row from the parts of attention in a layer to q, k and v of the next one: joins them, o_proj,
// norms, gate and up with GELU, down, norms, qkv; after the last layer there is none (the fragment
// before this one has `conclude`). One dispatch instead of seven: its workgroups wait for one
// another's results (exchange.wgsl) and fetch their next weights meanwhile.

@group(0) @binding(0) var<storage, read> o_data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> o_scales: array<u32>;
@group(0) @binding(2) var<storage, read> gate_up_data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> gate_up_scales: array<u32>;
@group(0) @binding(4) var<storage, read> down_data: array<vec4<u32>>;
@group(0) @binding(5) var<storage, read> down_scales: array<u32>;
@group(0) @binding(6) var<storage, read> qkv_data: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read> qkv_scales: array<u32>;
@group(0) @binding(8) var<storage, read> sums: array<vec4<f32>>;   // [N_HEADS, PARTS, D / 4], what sdpa_decode leaves
@group(0) @binding(9) var<storage, read> norms: array<vec2<f32>>;  // [N_HEADS, PARTS]: maximum, sum
@group(0) @binding(10) var<storage, read> rows: array<Row>;        // [1]
@group(0) @binding(11) var<storage, read> post_attention: array<vec4<f32>>;
@group(0) @binding(12) var<storage, read> pre_feedforward: array<vec4<f32>>;
@group(0) @binding(13) var<storage, read> post_feedforward: array<vec4<f32>>;
@group(0) @binding(14) var<storage, read> next_input: array<vec4<f32>>;
@group(0) @binding(15) var<storage, read_write> stream: array<vec4<f32>>;  // [N / 4], the residual stream, updated
@group(0) @binding(16) @coherent var<storage, read_write> exchange: array<vec4<u32>>; // [3, SET_FOURS]
@group(0) @binding(17) var<storage, read_write> y: array<vec4<f32>>;                 // q, k, v; or the normed hidden state
@group(0) @binding(18) @coherent var<storage, read_write> fault: atomic<u32>;
@group(0) @binding(19) var<uniform> layer: vec4<f32>;                                // scalar, own set of exchange, next one's, 0

// A set: both branches [N / 4] each; the MLP's hidden state and attention's output as int8, 16 in
// each four, and then scale and scale · sum of two groups in each.
const attention_BRANCH: u32 = 0u;
const feedforward_BRANCH: u32 = N / 4u;
const HIDDEN: u32 = N / 2u;
const ATTENTION: u32 = HIDDEN + down_GROUPS * 5u / 2u;

const EIGHTS: u32 = N / 8u;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// An invocation's columns of a row: every WORKGROUP-th eight. What lies past the end is 0.
struct Columns {
    eights: array<Eight, PER>,
}

fn is_column(p: u32, local: u32) -> bool {
    return local + p * WORKGROUP < EIGHTS;
}

// What an invocation holds for a norm: weights.
struct Ready {
    posts: array<Eight, PER>,
    nexts: array<Eight, PER>,
}

// The activations of the product that is under way: int8, 16 in each; scale, 8 · scale · sum of
// each 32.
var<workgroup> x_quants: array<vec4<u32>, MOST_COLS / 16u>;
var<workgroup> x_groups: array<vec2<f32>, MOST_COLS / 32u>;

const TEAM_COUNT: u32 = WORKGROUP / 32u;
// Tiles at which a squad works, and a little, so that eight neighbours meet in no bank.
const TEAM_PITCH: u32 = SLOTS * 32u + 4u;
var<workgroup> team_sums: array<f32, TEAM_COUNT * TEAM_PITCH>;
var<workgroup> row_sums: array<f32, TEAM_COUNT * 16u>;
// On products of x_quants.
var<private> x_factor: f32;
var<workgroup> branch_sums: array<f32, TEAMS>;

fn group_product(quants: vec4<u32>, scale: f32, group: u32) -> f32 {
    let lo = x_quants[group * 2u];
    let hi = x_quants[group * 2u + 1u];
    let even = quants & vec4<u32>(0x0f0f0f0fu);
    let odd = (quants >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    // See group_int4.wgsl.
    var sum = 0x4b400000i + dot4I8Packed(even.x, lo.x) + dot4I8Packed(odd.x, lo.y);
    sum += dot4I8Packed(even.y, lo.z) + dot4I8Packed(odd.y, lo.w);
    sum += dot4I8Packed(even.z, hi.x) + dot4I8Packed(odd.z, hi.y);
    sum += dot4I8Packed(even.w, hi.z) + dot4I8Packed(odd.w, hi.w);
    let x = x_groups[group];
    // Zero lies at 8.
    return scale * (x.x * (bitcast<f32>(sum) - 12582912.0) - x.y);
}

fn four_words(word: u32) -> vec4<u32> {
    return vec4<u32>(word, subgroupShuffleXor(word, 1u), subgroupShuffleXor(word, 2u), subgroupShuffleXor(word, 3u));
}

fn four_sums(at: u32) -> vec4<f32> {
    return vec4<f32>(row_sums[at], row_sums[at + 1u], row_sums[at + 2u], row_sums[at + 3u]);
}

fn own_set() -> u32 {
    return u32(layer.y) * SET_FOURS;
}

fn keep_rows(at: u32, count: u32, local: u32) {
    if local < count * 4u {
        exchange[own_set() + at + local] = filled(four_sums(local * 4u));
    }
}

fn keep_attention(first: u32, count: u32, local: u32) {
    keep_rows(attention_BRANCH + first * 4u, count, local);
}

fn keep_feedforward(first: u32, count: u32, local: u32) {
    keep_rows(feedforward_BRANCH + first * 4u, count, local);
}

// Four words as they were seen, or as they are once they are there.
fn settled(seen: vec4<u32>, at: u32) -> vec4<u32> {
    var four = seen;
    var spins = 0u;
    while is_empty(four) {
        spins++;
        if gives_up(spins) {
            break;
        }
        four = exchange[at + nothing(spins)];
    }
    return four;
}

// A branch's values, as soon as they are there. All are asked for at once.
fn branch_of_all(branch: u32, local: u32) -> Columns {
    var found = Columns();
    let at = own_set() + branch;
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let eight = at + (local + p * WORKGROUP) * 2u;
            found.eights[p] = Eight(bitcast<vec4<f32>>(exchange[eight]), bitcast<vec4<f32>>(exchange[eight + 1u]));
        }
    }
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let eight = at + (local + p * WORKGROUP) * 2u;
            found.eights[p].lo = bitcast<vec4<f32>>(settled(bitcast<vec4<u32>>(found.eights[p].lo), eight));
            found.eights[p].hi = bitcast<vec4<f32>>(settled(bitcast<vec4<u32>>(found.eights[p].hi), eight + 1u));
        }
    }
    return found;
}

fn squares_of_all(values: Columns, local: u32) -> f32 {
    var own = 0.0;
    for (var p = 0u; p < PER; p++) { // unrolled
        own += dot(values.eights[p].lo, values.eights[p].lo) + dot(values.eights[p].hi, values.eights[p].hi);
    }
    let team = subgroupAdd(own);
    if team_lane == 0u {
        branch_sums[team_index] = team;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = team_lane; i < team_count; i += team_size) {
        sum += branch_sums[i];
    }
    return subgroupAdd(sum);
}

fn keep_heads(first: u32, count: u32, local: u32) {
    if local < count * 4u {
        y[first * 4u + local] = four_sums(local * 4u) * x_factor;
    }
}

// Results of the MLP's first half, 32 of each unit.
fn keep_hidden(first: u32, count: u32, local: u32) {
    if local < count * 8u {
        let gates = four_sums(local * 4u) * x_factor;
        let ups = four_sums((count * 8u + local) * 4u) * x_factor;
        var values = vec4<f32>();
        for (var i = 0u; i < 4u; i++) { // unrolled
            values[i] = gelu_tanh(gates[i]) * ups[i];
        }
        let q8 = quantize_lanes(values);
        let words = four_words(q8.word);
        keep_group(HIDDEN, down_GROUPS, first + local / 8u, words, q8.group, local % 8u);
    }
}

// Group `group` of `count`, which eight lanes have, into a vector of int8.
fn keep_group(vector: u32, count: u32, group: u32, words: vec4<u32>, scale_sum: vec2<f32>, lane: u32) {
    let at = own_set() + vector;
    if lane % 4u == 0u && lane < 8u {
        exchange[at + group * 2u + lane / 4u] = words;
    }
    if lane == 0u {
        let pair = filled(vec4<f32>(scale_sum, vec2<f32>()));
        exchange[at + count * 2u + group / 2u][group % 2u * 2u] = pair.x;
        exchange[at + count * 2u + group / 2u][group % 2u * 2u + 1u] = pair.y;
    }
}

fn stream_ready(local: u32) -> Columns {
    var found = Columns();
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let eight = local + p * WORKGROUP;
            found.eights[p] = Eight(stream[eight * 2u], stream[eight * 2u + 1u]);
        }
    }
    return found;
}

fn keep_stream(values: Columns, local: u32) {
    for (var p = 0u; p < PER; p++) { // unrolled
        if is_column(p, local) {
            let eight = local + p * WORKGROUP;
            stream[eight * 2u] = values.eights[p].lo;
            stream[eight * 2u + 1u] = values.eights[p].hi;
        }
    }
}

// A vector of int8 of `count` groups, as soon as it is there.
fn take_vector(vector: u32, count: u32, local: u32) {
    let at = own_set() + vector;
    let pair_at = at + count * 2u + local;
    var pair = vec4<u32>();
    if local < count / 2u {
        pair = exchange[pair_at];
    }
    var quants = array<vec4<u32>, QUANTS_PER>();
    for (var p = 0u; p < QUANTS_PER; p++) { // unrolled
        if local + p * WORKGROUP < count * 2u {
            quants[p] = exchange[at + local + p * WORKGROUP];
        }
    }
    for (var p = 0u; p < QUANTS_PER; p++) { // unrolled
        let i = local + p * WORKGROUP;
        if i < count * 2u {
            x_quants[i] = settled(quants[p], at + i);
        }
    }
    if local < count / 2u {
        let both = bitcast<vec4<f32>>(settled(pair, pair_at));
        x_groups[local * 2u] = both.xy * vec2<f32>(1.0, 8.0);
        x_groups[local * 2u + 1u] = both.zw * vec2<f32>(1.0, 8.0);
    }
    workgroupBarrier();
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let first = group.x;
    join_attention(first);
    var o = o_Held();
    o_begin(&o, first, 0u, local);
    empty_next_set(first, local);
    workgroupBarrier();
    take_vector(ATTENTION, o_GROUPS, local);
    var before = Columns();
    var ready = Ready();
    var gate_up = gate_up_Held();
    o_product(&o, &before, &ready, &gate_up, first, local);

    before = attention_norm(before, ready, local);
    var down = down_Held();
    gate_up_product(&gate_up, &down, first, local);

    take_vector(HIDDEN, down_GROUPS, local);
    conclude(&down, &ready, before, first, local);
}
