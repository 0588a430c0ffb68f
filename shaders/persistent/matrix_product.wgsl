//! needs: product, product_weights; constants ROWS, GROUPS, UNIT, MOST_UNITS, ROUNDS, LANES,
//! INTERLEAVED16, GATED, CLUSTER, DEPTH

// One product of a persistent kernel. The kernel has an instance of this file for each matrix.
// It declares, with the instance's name:
//   data and scales, the bindings of the weights
//   store, which takes the results of a round from row_sums
//   prepare_next, which requests what follows this product
//   Next, the weights that prepare_next may request

const PAIRS: u32 = GROUPS / 2u;
// Pairs that a warp takes in a round.
const SHARE: u32 = (MOST_UNITS * UNIT * PAIRS + WARPS - 1u) / WARPS;
const MATRIX: Matrix = Matrix(
    ROWS,
    PAIRS,
    UNIT,
    ROWS / (16u * UNIT),
    MOST_UNITS,
    SHARE * CLUSTER,
    LANES,
    INTERLEAVED16,
    GATED,
);

// Weights that are requested or loaded.
struct Held {
    weights: array<StoredGroup, DEPTH>,
}

fn fetch(held: ptr<function, Held>, own: Round, at: u32, i: u32, local: u32) {
    if at < own.pairs.y {
        (*held).weights[i] = load_weights(place_of(MATRIX, own.units, at), local);
    }
}

// Requests the first weights of a round.
fn begin(held: ptr<function, Held>, group: u32, round: u32, local: u32) {
    let own = round_of(MATRIX, group, round, local);
    for (var i = 0u; i < DEPTH; i++) { // unrolled
        fetch(held, own, own.pairs.x + i * CLUSTER, i, local);
    }
}

// This invocation's part of its row's product with a group of x_quants.
// The second half of a warp has the second group of each pair.
fn take_pair(walk: ptr<function, Walk>, own: Round, weights: StoredGroup, local: u32) {
    if (*walk).at < own.pairs.y {
        if (*walk).at >= (*walk).tile_end {
            warp_sums[(*walk).slot] = (*walk).sum;
            (*walk).slot += 32u;
            (*walk).tile_end += PAIRS;
            (*walk).sum = 0.0;
        }
        let group = ((*walk).at + PAIRS - (*walk).tile_end) * 2u + local / 16u % 2u;
        (*walk).sum += group_product(weights, group, local);
    }
    (*walk).at += CLUSTER;
}

// Adds this invocation's parts of its rows' products to warp_sums.
// Each element of `held` is requested anew as soon as it has been used.
// NVIDIA's compiler waits for these loads at the end of the loop.
fn walk_round(held: ptr<function, Held>, own: Round, local: u32) {
    var walk = begin_walk(MATRIX, own, local);
    for (var step = 0u; step < SHARE; step += DEPTH) {
        for (var i = 0u; i < DEPTH; i++) { // unrolled
            let weights = (*held).weights[i];
            fetch(held, own, walk.at + DEPTH * CLUSTER, i, local);
            take_pair(&walk, own, weights, local);
        }
    }
    warp_sums[walk.slot] = walk.sum;
}

// A workgroup's part of the product. `held` has its first weights already.
// What follows is requested after the last reads of this product.
fn multiply(
    held: ptr<function, Held>,
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, Next>,
    group: u32,
    local: u32,
) {
    for (var round = 0u; round < ROUNDS; round++) {
        let own = round_of(MATRIX, group, round, local);
        if round > 0u {
            begin(held, group, round, local);
        }
        walk_round(held, own, local);
        if round + 1u == ROUNDS {
            prepare_next(before, ready, next, group, local);
        }
        collect(MATRIX, own, local);
        store(own.units.x, own.units.y - own.units.x, local);
    }
    workgroupBarrier();
}
