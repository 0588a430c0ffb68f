//! needs: vec8, scales, step, weights, write_results; constants COLS, GROUP, OVER_OUTPUTS, ROWS,
//! SUBGROUP, Y_OFFSET, Y_STRIDE

// matmul for software adapters, where a subgroup is a vector register.
// Each invocation has one row of x, and each weight is loaded once and broadcast to all.
// Workgroup memory is not used, as such adapters access it lane by lane.

@group(0) @binding(0) var<storage, read> data: array<u32>;         // [ROWS, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>; // [ROWS, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;      // [rows, COLS / 4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;      // [rows, Y_STRIDE]
@group(0) @binding(4) var<uniform> step: Step;

const BLOCK: u32 = min(SUBGROUP, 8u); // weight rows that a subgroup loads at once

// 32 values of one row, of x or of the weights.
struct Run {
    a: Vec8,
    b: Vec8,
    c: Vec8,
    d: Vec8,
}

struct Sums {
    lo: vec4<f32>,
    hi: vec4<f32>,
}

fn vec8_of_weights(n: u32, vec8: u32, scale: vec2<f32>) -> Vec8 {
    let quants = quants8(n, vec8);
    return Vec8(quants.lo * scale.x + scale.y, quants.hi * scale.x + scale.y);
}

fn vec8_of_x(row: u32, vec8: u32) -> Vec8 {
    let at = row * (COLS / 4u) + vec8 * 2u;
    return Vec8(x[at], x[at + 1u]);
}

fn product(w: Vec8, v: Vec8) -> f32 {
    return dot(w.lo, v.lo) + dot(w.hi, v.hi);
}

fn row_0(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 0u), subgroupBroadcast(w.a.hi, 0u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 0u), subgroupBroadcast(w.b.hi, 0u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 0u), subgroupBroadcast(w.c.hi, 0u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 0u), subgroupBroadcast(w.d.hi, 0u)), v.d);
}

fn row_1(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 1u), subgroupBroadcast(w.a.hi, 1u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 1u), subgroupBroadcast(w.b.hi, 1u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 1u), subgroupBroadcast(w.c.hi, 1u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 1u), subgroupBroadcast(w.d.hi, 1u)), v.d);
}

fn row_2(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 2u), subgroupBroadcast(w.a.hi, 2u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 2u), subgroupBroadcast(w.b.hi, 2u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 2u), subgroupBroadcast(w.c.hi, 2u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 2u), subgroupBroadcast(w.d.hi, 2u)), v.d);
}

fn row_3(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 3u), subgroupBroadcast(w.a.hi, 3u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 3u), subgroupBroadcast(w.b.hi, 3u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 3u), subgroupBroadcast(w.c.hi, 3u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 3u), subgroupBroadcast(w.d.hi, 3u)), v.d);
}

fn row_4(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 4u), subgroupBroadcast(w.a.hi, 4u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 4u), subgroupBroadcast(w.b.hi, 4u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 4u), subgroupBroadcast(w.c.hi, 4u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 4u), subgroupBroadcast(w.d.hi, 4u)), v.d);
}

fn row_5(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 5u), subgroupBroadcast(w.a.hi, 5u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 5u), subgroupBroadcast(w.b.hi, 5u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 5u), subgroupBroadcast(w.c.hi, 5u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 5u), subgroupBroadcast(w.d.hi, 5u)), v.d);
}

fn row_6(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 6u), subgroupBroadcast(w.a.hi, 6u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 6u), subgroupBroadcast(w.b.hi, 6u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 6u), subgroupBroadcast(w.c.hi, 6u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 6u), subgroupBroadcast(w.d.hi, 6u)), v.d);
}

fn row_7(w: Run, v: Run) -> f32 {
    return product(Vec8(subgroupBroadcast(w.a.lo, 7u), subgroupBroadcast(w.a.hi, 7u)), v.a)
        + product(Vec8(subgroupBroadcast(w.b.lo, 7u), subgroupBroadcast(w.b.hi, 7u)), v.b)
        + product(Vec8(subgroupBroadcast(w.c.lo, 7u), subgroupBroadcast(w.c.hi, 7u)), v.c)
        + product(Vec8(subgroupBroadcast(w.d.lo, 7u), subgroupBroadcast(w.d.hi, 7u)), v.d);
}

// Adds the products of a block of weight rows with 32 columns.
// This invocation loads row n of the block.
fn add_block(sums: Sums, n: u32, vec8: u32, v: Run) -> Sums {
    // Weight rows past the end repeat the last one. Their results are not stored.
    let row = min(n, ROWS - 1u);
    let first = scale_of(row, vec8 * 8u / GROUP);
    var second = first;
    if GROUP == 16u {
        second = scale_of(row, vec8 / 2u + 1u);
    }
    let w = Run(
        vec8_of_weights(row, vec8, first),
        vec8_of_weights(row, vec8 + 1u, first),
        vec8_of_weights(row, vec8 + 2u, second),
        vec8_of_weights(row, vec8 + 3u, second),
    );
    let lo = sums.lo + vec4<f32>(row_0(w, v), row_1(w, v), row_2(w, v), row_3(w, v));
    if BLOCK == 4u {
        return Sums(lo, sums.hi);
    }
    return Sums(lo, sums.hi + vec4<f32>(row_4(w, v), row_5(w, v), row_6(w, v), row_7(w, v)));
}

fn write_block(sums: Sums, first: u32, base: u32) {
    write_results(first, sums.lo, base);
    if BLOCK == 8u {
        write_results(first + 4u, sums.hi, base);
    }
}

@compute @workgroup_size(SUBGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let rows = select(step.rows, step.outputs, OVER_OUTPUTS);
    let row = group.y * SUBGROUP + lane;
    let x_row = min(row, rows - 1u);
    let first = group.x * (4u * BLOCK);
    let n = first + lane % BLOCK;
    var sums_0 = Sums();
    var sums_1 = Sums();
    var sums_2 = Sums();
    var sums_3 = Sums();
    for (var vec8 = 0u; vec8 < COLS / 8u; vec8 += 4u) {
        let v = Run(
            vec8_of_x(x_row, vec8),
            vec8_of_x(x_row, vec8 + 1u),
            vec8_of_x(x_row, vec8 + 2u),
            vec8_of_x(x_row, vec8 + 3u),
        );
        sums_0 = add_block(sums_0, n, vec8, v);
        sums_1 = add_block(sums_1, n + BLOCK, vec8, v);
        sums_2 = add_block(sums_2, n + 2u * BLOCK, vec8, v);
        sums_3 = add_block(sums_3, n + 3u * BLOCK, vec8, v);
    }
    if row < rows {
        let base = row * Y_STRIDE + Y_OFFSET;
        write_block(sums_0, first, base);
        write_block(sums_1, first + BLOCK, base);
        write_block(sums_2, first + 2u * BLOCK, base);
        write_block(sums_3, first + 3u * BLOCK, base);
    }
}
