//! needs: reduce, scales, step, token, weights; constants EPS, FIRST_ROW, GROUP, PROJECTION_SCALE,
//! ROWS, SIZE, STRIDE, TABLE_SCALE, WORKGROUP

// The per-layer embeddings of each token, with a workgroup for each layer of a row.
// They replace the projections of the embedding in x:
//   x[row, layer] = (a + b) / sqrt(2)
//   a = rms_norm(x[row, layer] · PROJECTION_SCALE) · norm
//   b = table[token, layer] · TABLE_SCALE
//
// The kernel takes only tokens whose table row is in this part of the table.

@group(0) @binding(0) var<storage, read> data: array<u32>;         // [ROWS, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>; // [ROWS, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> rows: array<Row>;         // [rows]
@group(0) @binding(3) var<storage, read> sampled: array<u32>;      // [slots]
@group(0) @binding(4) var<storage, read> norm: array<f32>;         // [SIZE]
@group(0) @binding(5) var<storage, read_write> x: array<f32>;      // [rows, STRIDE]: [layers, SIZE]

const SQRT_HALF: f32 = 0.70710678;

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let token = token_of(rows[group.x]);
    if token < FIRST_ROW || token >= FIRST_ROW + ROWS {
        return;
    }
    let table_row = token - FIRST_ROW;
    let base = group.x * STRIDE + group.y * SIZE;
    var squares = 0.0;
    for (var i = local; i < SIZE; i += WORKGROUP) {
        let projected = x[base + i] * PROJECTION_SCALE;
        squares += projected * projected;
    }
    let factor = inverseSqrt(group_sum(squares, local) / f32(SIZE) + EPS) * PROJECTION_SCALE;
    for (var i = local; i < SIZE; i += WORKGROUP) {
        let col = group.y * SIZE + i;
        let quants = quants8(table_row, col / 8u);
        let i4 = select(quants.lo, quants.hi, col % 8u >= 4u);
        let scale = scale_of(table_row, col / GROUP);
        let of_token = (i4[col % 4u] * scale.x + scale.y) * TABLE_SCALE;
        x[base + i] = (x[base + i] * factor * norm[i] + of_token) * SQRT_HALF;
    }
}
