//! needs: epilogue, reduce; constants EPILOGUE_COLS, EPS, N, PARTS, PART_STRIDE, WORKGROUP

// add_rms_norm for rows of at most two vec4s for each invocation.
// Everything is loaded at once, so the kernel waits only once for memory.

// [rows, EPILOGUE_COLS / 4]
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
// [PARTS, rows, EPILOGUE_COLS / 4]: to be summed
@group(0) @binding(1) var<storage, read> branch: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> post_weight: array<vec4<f32>>;    // [N / 4]
@group(0) @binding(3) var<storage, read> next_weight: array<vec4<f32>>;    // [N / 4]
@group(0) @binding(4) var<uniform> layer: vec4<f32>;                       // x: scalar

const VEC4S: u32 = (N + 3u) / 4u;

// A vec4 of the sublayer output. Columns past the end are zero.
fn branch_at(base: u32, i: u32) -> vec4<f32> {
    if i >= VEC4S {
        return vec4<f32>();
    }
    var sum = branch[base + i];
    for (var part = 1u; part < PARTS; part++) {
        sum += branch[part * (PART_STRIDE / 4u) + base + i];
    }
    return sum;
}

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let base = group.x * (EPILOGUE_COLS / 4u);
    let first = local;
    let second = local + WORKGROUP;
    // Reads past the end repeat the last column, multiplied by zero.
    let held_first = min(first, VEC4S - 1u);
    let held_second = min(second, VEC4S - 1u);
    let branch_first = branch_at(base, first);
    let branch_second = branch_at(base, second);
    var x_first = x[base + held_first];
    var x_second = x[base + held_second];
    let post_first = post_weight[held_first];
    let post_second = post_weight[held_second];
    let next_first = next_weight[held_first];
    let next_second = next_weight[held_second];

    let branch_squares = dot(branch_first, branch_first) + dot(branch_second, branch_second);
    let branch_factor = inverseSqrt(group_sum(branch_squares, local) / f32(N) + EPS);
    x_first = select(
        vec4<f32>(), (x_first + branch_first * branch_factor * post_first) * layer.x, first < VEC4S,
    );
    x_second = select(
        vec4<f32>(),
        (x_second + branch_second * branch_factor * post_second) * layer.x,
        second < VEC4S,
    );
    if first < VEC4S {
        x[base + first] = x_first;
    }
    if second < VEC4S {
        x[base + second] = x_second;
    }
    let squares = dot(x_first, x_first) + dot(x_second, x_second);
    let factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    epilogue(group.x, first, x_first * factor * next_first, local);
    epilogue(group.x, second, x_second * factor * next_second, local);
}
