//! needs: scales, step, token, weights; constants COLS, FIRST_ROW, GROUP, ROWS, SCALE, TRUE_COLS,
//! WORKGROUP

// x[row] = table[token of row] · SCALE, for tokens whose table row is in this part of the table.

@group(0) @binding(0) var<storage, read> data: array<u32>;     // [ROWS, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>; // [ROWS, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> rows: array<Row>;     // [rows]
@group(0) @binding(3) var<storage, read> sampled: array<u32>;  // [slots]
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>; // [rows, COLS / 4]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let token = token_of(rows[group.x]);
    if token < FIRST_ROW || token >= FIRST_ROW + ROWS {
        return;
    }
    let table_row = token - FIRST_ROW;
    for (var vec8 = local; vec8 < COLS / 8u; vec8 += WORKGROUP) {
        let quants = quants8(table_row, vec8);
        let scale = scale_of(table_row, vec8 * 8u / GROUP);
        let at = group.x * (COLS / 4u) + vec8 * 2u;
        // Padding columns have the value of a group's offset, so the kernel writes zeros instead.
        let store_lo = vec4<u32>(vec8 * 8u) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(TRUE_COLS);
        let store_hi = vec4<u32>(vec8 * 8u) + vec4<u32>(4u, 5u, 6u, 7u) < vec4<u32>(TRUE_COLS);
        x[at] = select(vec4<f32>(), (quants.lo * scale.x + scale.y) * SCALE, store_lo);
        x[at + 1u] = select(vec4<f32>(), (quants.hi * scale.x + scale.y) * SCALE, store_hi);
    }
}
