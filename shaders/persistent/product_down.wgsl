//! needs: product; constants DOWN_ROWS, DOWN_GROUPS, DOWN_UNIT, DOWN_MOST_UNITS,
//! DOWN_ROUNDS, DOWN_LANES, DOWN_INTERLEAVED16, DEPTH, CLUSTER

// The second half of the MLP, which computes the second sublayer output.

const DOWN_PAIRS: u32 = DOWN_GROUPS / 2u;
// Pairs that a warp takes in a round.
const DOWN_SHARE: u32 = (DOWN_MOST_UNITS * DOWN_UNIT * DOWN_PAIRS + WARPS - 1u) / WARPS;
const DOWN: Matrix = Matrix(
    DOWN_ROWS,
    DOWN_PAIRS,
    DOWN_UNIT,
    DOWN_ROWS / (16u * DOWN_UNIT),
    DOWN_MOST_UNITS,
    DOWN_SHARE * CLUSTER,
    DOWN_LANES,
    DOWN_INTERLEAVED16,
    false,
);

fn down_fetch(held: ptr<function, Held>, own: Round, at: u32, i: u32, local: u32) {
    if at < own.pairs.y {
        let place = place_of(DOWN, own.units, at);
        (*held).quants[i] = down_data[data_index(DOWN, place, local)];
        (*held).pairs[i] = down_scales[scale_index(DOWN, place, local)];
    }
}

// Requests the first weights of a round.
fn down_begin(held: ptr<function, Held>, group: u32, round: u32, local: u32) {
    let own = round_of(DOWN, group, round, local);
    for (var i = 0u; i < DEPTH; i++) { // unrolled
        down_fetch(held, own, own.pairs.x + i * CLUSTER, i, local);
    }
}

// Adds this invocation's parts of its rows' products to warp_sums.
// Each element of `held` is requested anew as soon as it has been used.
// NVIDIA's compiler waits for these loads at the end of the loop.
fn down_walk(held: ptr<function, Held>, own: Round, local: u32) {
    var walk = begin_walk(DOWN, own, local);
    for (var step = 0u; step < DOWN_SHARE; step += DEPTH) {
        for (var i = 0u; i < DEPTH; i++) { // unrolled
            let quants = (*held).quants[i];
            let pair = (*held).pairs[i];
            down_fetch(held, own, walk.at + DEPTH * CLUSTER, i, local);
            take_pair(&walk, DOWN, own, quants, pair, local);
        }
    }
    warp_sums[walk.slot] = walk.sum;
}

// A workgroup's part of the product. `held` has its first weights already.
// The reads for the next product are requested after the last reads of this one.
fn down_product(
    held: ptr<function, Held>,
    ready: ptr<function, Ready>,
    next: ptr<function, Held>,
    group: u32,
    local: u32,
) {
    for (var round = 0u; round < DOWN_ROUNDS; round++) {
        let own = round_of(DOWN, group, round, local);
        if round > 0u {
            down_begin(held, group, round, local);
        }
        down_walk(held, own, local);
        if round + 1u == DOWN_ROUNDS {
            prepare_end(ready, next, group, local);
        }
        collect(DOWN, own, local);
        store_feedforward(own.units.x, own.units.y - own.units.x, local);
    }
    workgroupBarrier();
}
