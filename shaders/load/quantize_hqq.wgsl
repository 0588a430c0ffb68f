//! needs: half_bits, search, source; constants COLS, GROUP, HIGHEST, LOWEST, ROWS, ROW_GROUPS,
//! WORKGROUP

// Scale and offset of each group of a matrix by half-quadratic quantization.
// An invocation has one group.

// [ROWS, COLS] in the stored type, see `value`
@group(0) @binding(0) var<storage, read> source: array<u32>;
// [ROWS, ROW_GROUPS]: scale as f16 in the low half, offset in the high half
@group(0) @binding(1) var<storage, read_write> chosen: array<u32>;

struct Steps {
    scale: f32,
    inverse: f32,
    zero: f32,
    word: u32,
}

// The group's elements are those from `first` to `end`, without `end`.
var<private> first: u32;
var<private> end: u32;
var<private> mean_square: f32;
var<private> best: Steps;
var<private> best_error: f32;
// Whether a scale or offset is too large for f16.
var<private> fault: bool;

// A scale and an offset, rounded as they are stored.
fn make_steps(scale: f32, offset: f32) -> Steps {
    var scale_half = to_half(scale);
    if (scale_half & 0x7fffu) == 0u {
        scale_half = 0u;
    }
    let zero_half = to_half(offset);
    fault = fault || max(scale_half & 0x7fffu, zero_half & 0x7fffu) >= HALF_INFINITY;
    let step = from_half(scale_half);
    var inverse = 0.0;
    if scale_half != 0u {
        inverse = 1.0 / step;
    }
    return Steps(step, inverse, from_half(zero_half), scale_half | (zero_half << 16u));
}

// The quantization level nearest to x.
fn level(steps: Steps, x: f32) -> f32 {
    let biased = (x - steps.zero) * steps.inverse + (0.5 - LOWEST);
    return floor(clamp(biased, 0.0, HIGHEST - LOWEST + 0.5)) + LOWEST;
}

fn rounded(steps: Steps, x: f32) -> f32 {
    return steps.scale * level(steps, x) + steps.zero;
}

// The weight of a value's error. Large values contribute more to products, and clipping costs most.
fn importance(x: f32) -> f32 {
    return mean_square + x * x;
}

fn squared_error(steps: Steps) -> f32 {
    var sum = 0.0;
    for (var i = first; i < end; i++) {
        let x = value(i);
        let error = x - rounded(steps, x);
        sum += error * error * importance(x);
    }
    return sum;
}

// Starts the search with these steps.
fn begin(steps: Steps) {
    var sum = 0.0;
    for (var i = first; i < end; i++) {
        sum += value(i) * value(i);
    }
    mean_square = sum / f32(end - first);
    best = steps;
    best_error = squared_error(steps);
}

// Keeps these steps if their error is smaller.
fn offer(steps: Steps) {
    let error = squared_error(steps);
    if error < best_error {
        best = steps;
        best_error = error;
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = (group.x + group.y * groups.x) * WORKGROUP + local;
    if index >= ROWS * ROW_GROUPS {
        return;
    }
    let start = (index % ROW_GROUPS) * GROUP;
    let row = (index / ROW_GROUPS) * COLS;
    first = row + start;
    end = row + min(start + GROUP, COLS);
    fault = false;
    search();
    chosen[index] = select(best.word, HALF_INFINITY, fault);
}
