//! needs: epilogue, gelu, matvec_q8_tiles; constants EPILOGUE_COLS, M, ROWS

// gelu(gate) · up: the products of two tiles of gate with the matching two tiles of up.
// The rows of up follow those of gate.

var<workgroup> kept: array<f32, M * TILE_ROWS>;

// The first row of a tile of workgroup `block`.
fn first_row(block: u32, tile: u32) -> u32 {
    return (tile / 2u) * (ROWS / 2u) + block * 32u + (tile % 2u) * 16u;
}

fn store(place: vec2<u32>, m: u32, n: u32, sum: f32, rows: u32) {
    kept[m * TILE_ROWS + n] = sum;
}

fn conclude(block: u32, rows: u32, local: u32) {
    workgroupBarrier();
    // Eight invocations share a row's 32 results.
    let row = local / 8u;
    let inside = row < min(M, rows);
    var values = vec4<f32>();
    if inside {
        let at = row * TILE_ROWS + (local % 8u) * 4u;
        for (var i = 0u; i < 4u; i++) {
            values[i] = gelu_tanh(kept[at + i]) * kept[at + 32u + i];
        }
    }
    epilogue(row, select(EPILOGUE_COLS, block * 8u + local % 8u, inside), values, local);
}
