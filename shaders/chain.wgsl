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
@group(0) @binding(14) var<storage, read_write> stream: array<vec4<f32>>;  // [N / 4], the residual stream, updated
@group(0) @binding(15) @coherent var<storage, read_write> squares: array<f32>;       // [WORKGROUPS]: of their parts of branch, summed
@group(0) @binding(16) @coherent var<storage, read_write> branch: array<vec4<f32>>;  // [N / 4]
@group(0) @binding(17) @coherent var<storage, read_write> hidden_quants: array<vec4<u32>>;
@group(0) @binding(18) @coherent var<storage, read_write> hidden_groups: array<vec2<f32>>;
@group(0) @binding(19) var<storage, read_write> y: array<vec4<f32>>;                 // q, k, v
@group(0) @binding(20) @coherent var<storage, read_write> sync: Sync;
@group(0) @binding(21) var<uniform> layer: vec4<f32>;                                // x: scalar, y: barriers of this step before

const EIGHTS: u32 = N / 8u;

struct Eight {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

// An invocation's columns of a row: every WORKGROUP-th eight. What lies past the end is read as the last ones and counts for nothing.
struct Columns {
    eights: array<Eight, PER>,
}

fn eight_of(p: u32, local: u32) -> u32 {
    return min(local + p * WORKGROUP, EIGHTS - 1u);
}

fn is_column(p: u32, local: u32) -> bool {
    return local + p * WORKGROUP < EIGHTS;
}

// What an invocation holds for a norm: weights.
struct Ready {
    posts: array<Eight, PER>,
    nexts: array<Eight, PER>,
}

// The activations of the product that is under way: int8, 16 in each; scale, 8 · scale · sum of each 32.
var<workgroup> x_quants: array<vec4<u32>, MOST_COLS / 16u>;
var<workgroup> x_groups: array<vec2<f32>, MOST_COLS / 32u>;

const TEAM_COUNT: u32 = WORKGROUP / 32u;
// Tiles at which a squad works, and a little, so that eight neighbours meet in no bank.
const TEAM_PITCH: u32 = SLOTS * 32u + 4u;
var<workgroup> team_sums: array<f32, TEAM_COUNT * TEAM_PITCH>;
var<workgroup> row_sums: array<f32, TEAM_COUNT * 16u>;
// On products of x_quants.
var<private> x_factor: f32;
var<private> own_squares: f32;

fn group_product(quants: vec4<u32>, scale: f32, group: u32) -> f32 {
    let lo = x_quants[group * 2u];
    let hi = x_quants[group * 2u + 1u];
    let even = quants & vec4<u32>(0x0f0f0f0fu);
    let odd = (quants >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    var sum = dot4I8Packed(even.x, lo.x) + dot4I8Packed(odd.x, lo.y);
    sum += dot4I8Packed(even.y, lo.z) + dot4I8Packed(odd.y, lo.w);
    sum += dot4I8Packed(even.z, hi.x) + dot4I8Packed(odd.z, hi.y);
    sum += dot4I8Packed(even.w, hi.z) + dot4I8Packed(odd.w, hi.w);
    let x = x_groups[group];
    // Zero lies at 8.
    return scale * (x.x * f32(sum) - x.y);
}

fn four_words(word: u32) -> vec4<u32> {
    return vec4<u32>(word, subgroupShuffleXor(word, 1u), subgroupShuffleXor(word, 2u), subgroupShuffleXor(word, 3u));
}

fn four_sums(at: u32) -> vec4<f32> {
    return vec4<f32>(row_sums[at], row_sums[at + 1u], row_sums[at + 2u], row_sums[at + 3u]);
}

// Done by one subgroup, which sums the squares too.
fn keep_branch(first: u32, count: u32, local: u32) {
    if team_index == 0u {
        for (var i = team_lane; i < count * 4u; i += team_size) {
            let four = four_sums(i * 4u);
            branch[first * 4u + i] = four;
            own_squares += dot(four, four);
        }
    }
}

fn keep_squares(group: u32) {
    let sum = subgroupAdd(own_squares);
    own_squares = 0.0;
    if team_index == 0u && team_lane == 0u {
        squares[group] = sum;
    }
}

// The branch's squares, summed. All that is read is on its way at once.
fn branch_squares() -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < SQUARES_EACH; i++) { // unrolled
        let at = team_lane + i * team_size;
        sum += select(0.0, squares[min(at, WORKGROUPS - 1u)], at < WORKGROUPS);
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
        if local % 4u == 0u {
            hidden_quants[first * 2u + local / 4u] = words;
        }
        if local % 8u == 0u {
            hidden_groups[first + local / 8u] = q8.group;
        }
    }
}

fn stream_ready(local: u32) -> Columns {
    var found = Columns();
    for (var p = 0u; p < PER; p++) { // unrolled
        let eight = eight_of(p, local);
        found.eights[p] = Eight(stream[eight * 2u], stream[eight * 2u + 1u]);
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

fn take_attention(local: u32) {
    for (var i = local; i < o_GROUPS * 2u; i += WORKGROUP) {
        x_quants[i] = attention_quants[i];
    }
    for (var i = local; i < o_GROUPS; i += WORKGROUP) {
        x_groups[i] = attention_groups[i] * vec2<f32>(1.0, 8.0);
    }
    workgroupBarrier();
}

// The MLP's hidden state, as others have left it.
struct Hidden {
    quants: array<vec4<u32>, HIDDEN_PER>,
    groups: array<vec2<f32>, HIDDEN_PER>,
}

fn hidden_ready(local: u32) -> Hidden {
    var found = Hidden();
    for (var p = 0u; p < HIDDEN_PER; p++) { // unrolled
        found.quants[p] = hidden_quants[min(local + p * WORKGROUP, down_GROUPS * 2u - 1u)];
        if local + p * WORKGROUP < down_GROUPS {
            found.groups[p] = hidden_groups[local + p * WORKGROUP];
        }
    }
    return found;
}

fn take_hidden(found: Hidden, local: u32) {
    for (var p = 0u; p < HIDDEN_PER; p++) { // unrolled
        let i = local + p * WORKGROUP;
        if i < down_GROUPS * 2u {
            x_quants[i] = found.quants[p];
        }
        if i < down_GROUPS {
            x_groups[i] = found.groups[p] * vec2<f32>(1.0, 8.0);
        }
    }
    workgroupBarrier();
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let first = group.x;
    let before = u32(layer.y);
    // Each matrix's first weights are on their way while others are waited for.
    var o = o_Held();
    o_begin(&o, first, 0u, local);
    take_attention(local);
    o_product(&o, first, local);
    keep_squares(first);
    grid_arrive(local);
    var gate_up = gate_up_Held();
    gate_up_begin(&gate_up, first, 0u, local);
    let attention = attention_ready(local);
    let stream_before = stream_ready(local);
    grid_wait(before + 1u, local);

    let middle = attention_norm(stream_before, attention, local);
    gate_up_product(&gate_up, first, local);
    grid_arrive(local);
    var down = down_Held();
    down_begin(&down, first, 0u, local);
    grid_wait(before + 2u, local);

    take_hidden(hidden_ready(local), local);
    down_product(&down, first, local);
    keep_squares(first);
    grid_arrive(local);
    var qkv = qkv_Held();
    qkv_begin(&qkv, first, 0u, local);
    let feedforward = feedforward_ready(local);
    grid_wait(before + 3u, local);

    let after = feedforward_norm(middle, feedforward, local);
    if first == 0u {
        keep_stream(after, local);
    }
    qkv_product(&qkv, first, local);
}
