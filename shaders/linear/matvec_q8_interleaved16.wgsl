//! needs: finish, matvec_q8_tiles; constants ROWS, SPLIT_STRIDE, Y_OFFSET, Y_STRIDE

// Stores the products of tiles: y[m, Y_OFFSET + n] = finish(sum).
// Where workgroups divide the columns, it stores y[split, m, n] = sum.

// [SPLITS, rows, Y_STRIDE], splits SPLIT_STRIDE apart
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

// The first row of a tile of workgroup `block`.
fn first_row(block: u32, tile: u32) -> u32 {
    return block * TILE_ROWS + tile * 16u;
}

// Stores a result of split `place.y` of workgroup `place.x`.
fn store(place: vec2<u32>, m: u32, n: u32, sum: f32, rows: u32) {
    let row = first_row(place.x, 0u) + n;
    if m < rows && row < ROWS {
        y[place.y * SPLIT_STRIDE + m * Y_STRIDE + Y_OFFSET + row] = finish(sum);
    }
}

fn conclude(block: u32, rows: u32, local: u32) {}
