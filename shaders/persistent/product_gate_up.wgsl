//! needs: product; constants GATE_UP_ROWS, GATE_UP_GROUPS, GATE_UP_UNIT, GATE_UP_MOST_UNITS,
//! GATE_UP_ROUNDS, GATE_UP_LANES, GATE_UP_INTERLEAVED16, DEPTH, CLUSTER

// The first half of the MLP: gelu(gate) · up.

const GATE_UP_PAIRS: u32 = GATE_UP_GROUPS / 2u;
// Pairs that a warp takes in a round.
const GATE_UP_SHARE: u32 = (GATE_UP_MOST_UNITS * GATE_UP_UNIT * GATE_UP_PAIRS + WARPS - 1u) / WARPS;
const GATE_UP: Matrix = Matrix(
    GATE_UP_ROWS,
    GATE_UP_PAIRS,
    GATE_UP_UNIT,
    GATE_UP_ROWS / (16u * GATE_UP_UNIT),
    GATE_UP_MOST_UNITS,
    GATE_UP_SHARE * CLUSTER,
    GATE_UP_LANES,
    GATE_UP_INTERLEAVED16,
    true,
);

fn gate_up_fetch(held: ptr<function, Held>, own: Round, at: u32, i: u32, local: u32) {
    if at < own.pairs.y {
        let place = place_of(GATE_UP, own.units, at);
        (*held).quants[i] = gate_up_data[data_index(GATE_UP, place, local)];
        (*held).pairs[i] = gate_up_scales[scale_index(GATE_UP, place, local)];
    }
}

// Requests the first weights of a round.
fn gate_up_begin(held: ptr<function, Held>, group: u32, round: u32, local: u32) {
    let own = round_of(GATE_UP, group, round, local);
    for (var i = 0u; i < DEPTH; i++) { // unrolled
        gate_up_fetch(held, own, own.pairs.x + i * CLUSTER, i, local);
    }
}

// Adds this invocation's parts of its rows' products to warp_sums.
// Each element of `held` is requested anew as soon as it has been used.
// NVIDIA's compiler waits for these loads at the end of the loop.
fn gate_up_walk(held: ptr<function, Held>, own: Round, local: u32) {
    var walk = begin_walk(GATE_UP, own, local);
    for (var step = 0u; step < GATE_UP_SHARE; step += DEPTH) {
        for (var i = 0u; i < DEPTH; i++) { // unrolled
            let quants = (*held).quants[i];
            let pair = (*held).pairs[i];
            gate_up_fetch(held, own, walk.at + DEPTH * CLUSTER, i, local);
            take_pair(&walk, GATE_UP, own, quants, pair, local);
        }
    }
    warp_sums[walk.slot] = walk.sum;
}

// A workgroup's part of the product. `held` has its first weights already.
// The reads for the next product are requested after the last reads of this one.
fn gate_up_product(held: ptr<function, Held>, next: ptr<function, Held>, group: u32, local: u32) {
    for (var round = 0u; round < GATE_UP_ROUNDS; round++) {
        let own = round_of(GATE_UP, group, round, local);
        if round > 0u {
            gate_up_begin(held, group, round, local);
        }
        gate_up_walk(held, own, local);
        if round + 1u == GATE_UP_ROUNDS {
            down_begin(next, group, 0u, local);
        }
        collect(GATE_UP, own, local);
        store_hidden(own.units.x, own.units.y - own.units.x, local);
    }
    workgroupBarrier();
}
