//! needs: constants CLUSTER, SLOTS, WORKGROUP, WORKGROUPS

// Products with matrices in the order of weight_layout.wgsl.
//
// The rows of a matrix are divided into tiles of 16. A workgroup takes whole units of `unit` tiles.
// In a workgroup every 32 invocations have an equal share of the reads, so none waits before the
// end.
// They are called a warp here, whatever the size of subgroups is.
// A share consists of pairs of groups, one tile after another.
// CLUSTER warps alternate among the pairs of one stretch, so simultaneous reads are contiguous.
//
// Each matrix has an instance of matrix_product.wgsl. This file has what they share.
// Functions are small or take a constant Matrix, so that drivers inline them.

struct Matrix {
    rows: u32,
    pairs: u32,      // pairs of groups in a row
    unit: u32,       // tiles
    units: u32,
    most_units: u32, // that a workgroup takes in a round, at most
    stretch: u32,    // pairs that a cluster takes in a round
    lanes: u32,      // invocations that sum a row
    interleaved16: bool,
    gated: bool,
}

// What a warp computes in a round.
struct Round {
    units: vec2<u32>, // first and end
    stretch: u32,     // the cluster's first pair, from the round's first tile on
    pairs: vec2<u32>, // the warp's first pair, the cluster's end
}

// The position of a warp in its round, and the sum of its current tile.
struct Walk {
    at: u32,       // pair
    tile_end: u32, // pair
    slot: u32,     // in warp_sums
    sum: f32,
}

const WARPS: u32 = WORKGROUP / 32u;
// The words of a cluster's tiles, plus 4, so that eight neighbouring warps use different banks.
const WARP_PITCH: u32 = SLOTS * 32u + 4u;
var<workgroup> warp_sums: array<f32, WARPS * WARP_PITCH>;
var<workgroup> row_sums: array<f32, WARPS * 16u>;

fn round_of(matrix: Matrix, group: u32, round: u32, local: u32) -> Round {
    let end = (group + 1u) * matrix.units / WORKGROUPS;
    let first = min(group * matrix.units / WORKGROUPS + round * matrix.most_units, end);
    let units = vec2<u32>(first, min(first + matrix.most_units, end));
    let pairs = (units.y - units.x) * matrix.unit * matrix.pairs;
    let stretch = local / 32u / CLUSTER * matrix.stretch;
    let pair = stretch + local / 32u % CLUSTER;
    return Round(units, stretch, vec2<u32>(pair, min(stretch + matrix.stretch, pairs)));
}

// The place of pair `at` of a round, in pairs from the matrix's start.
fn place_of(matrix: Matrix, units: vec2<u32>, at: u32) -> u32 {
    if matrix.gated {
        // The tiles of gate come first, then those of up.
        let half = (units.y - units.x) * (matrix.unit / 2u) * matrix.pairs;
        let gate = units.x * (matrix.unit / 2u) * matrix.pairs + at;
        return select(gate, gate - half + matrix.rows / 32u * matrix.pairs, at >= half);
    }
    return units.x * matrix.unit * matrix.pairs + at;
}

fn data_index(matrix: Matrix, place: u32, local: u32) -> u32 {
    if matrix.interleaved16 {
        return place * 32u + local % 32u;
    }
    let row = place / matrix.pairs * 16u + local % 16u;
    return row * (matrix.pairs * 2u) + place % matrix.pairs * 2u + local / 16u % 2u;
}

// The index of the scales of a pair of groups.
fn scale_index(matrix: Matrix, place: u32, local: u32) -> u32 {
    if matrix.interleaved16 {
        return place * 16u + local % 16u;
    }
    let row = place / matrix.pairs * 16u + local % 16u;
    return row * matrix.pairs + place % matrix.pairs;
}

fn begin_walk(matrix: Matrix, own: Round, local: u32) -> Walk {
    let slot = local / 32u * WARP_PITCH + local % 32u;
    for (var i = 0u; i < SLOTS; i++) { // unrolled
        warp_sums[slot + i * 32u] = 0.0;
    }
    return Walk(own.pairs.x, (own.stretch / matrix.pairs + 1u) * matrix.pairs, slot, 0.0);
}

// Writes the sums of a round's rows to row_sums.
fn collect(matrix: Matrix, own: Round, local: u32) {
    workgroupBarrier();
    let row = local / matrix.lanes;
    let tile = row / 16u;
    // The clusters that contributed to the tile. Each of their warps has two halves.
    let first = tile * matrix.pairs / matrix.stretch;
    let last = ((tile + 1u) * matrix.pairs - 1u) / matrix.stretch;
    let end = min(last + 1u, WARPS / CLUSTER) * CLUSTER * 2u;
    var sum = 0.0;
    if tile < (own.units.y - own.units.x) * matrix.unit {
        let begin = first * CLUSTER * 2u + local % matrix.lanes;
        for (var part = begin; part < end; part += matrix.lanes) {
            let warp = part / 2u;
            let slot = tile - warp / CLUSTER * matrix.stretch / matrix.pairs;
            sum += warp_sums[warp * WARP_PITCH + slot * 32u + part % 2u * 16u + row % 16u];
        }
    }
    if matrix.lanes > 1u {
        sum += subgroupShuffleXor(sum, 1u);
    }
    if matrix.lanes > 2u {
        sum += subgroupShuffleXor(sum, 2u);
    }
    if matrix.lanes > 4u {
        sum += subgroupShuffleXor(sum, 4u);
    }
    if local % matrix.lanes == 0u && row < WARPS * 16u {
        row_sums[row] = sum;
    }
    workgroupBarrier();
}
