//! needs: product; constants O_ROWS, O_GROUPS, O_UNIT, O_MOST_UNITS,
//! O_ROUNDS, O_LANES, O_INTERLEAVED16, DEPTH, CLUSTER

// o_proj, which computes the first sublayer output from attention's output.

const O_PAIRS: u32 = O_GROUPS / 2u;
// Pairs that a warp takes in a round.
const O_SHARE: u32 = (O_MOST_UNITS * O_UNIT * O_PAIRS + WARPS - 1u) / WARPS;
const O: Matrix = Matrix(
    O_ROWS,
    O_PAIRS,
    O_UNIT,
    O_ROWS / (16u * O_UNIT),
    O_MOST_UNITS,
    O_SHARE * CLUSTER,
    O_LANES,
    O_INTERLEAVED16,
    false,
);

fn o_fetch(held: ptr<function, Held>, own: Round, at: u32, i: u32, local: u32) {
    if at < own.pairs.y {
        let place = place_of(O, own.units, at);
        (*held).quants[i] = o_data[data_index(O, place, local)];
        (*held).pairs[i] = o_scales[scale_index(O, place, local)];
    }
}

// Requests the first weights of a round.
fn o_begin(held: ptr<function, Held>, group: u32, round: u32, local: u32) {
    let own = round_of(O, group, round, local);
    for (var i = 0u; i < DEPTH; i++) { // unrolled
        o_fetch(held, own, own.pairs.x + i * CLUSTER, i, local);
    }
}

// Adds this invocation's parts of its rows' products to warp_sums.
// Each element of `held` is requested anew as soon as it has been used.
// NVIDIA's compiler waits for these loads at the end of the loop.
fn o_walk(held: ptr<function, Held>, own: Round, local: u32) {
    var walk = begin_walk(O, own, local);
    for (var step = 0u; step < O_SHARE; step += DEPTH) {
        for (var i = 0u; i < DEPTH; i++) { // unrolled
            let quants = (*held).quants[i];
            let pair = (*held).pairs[i];
            o_fetch(held, own, walk.at + DEPTH * CLUSTER, i, local);
            take_pair(&walk, O, own, quants, pair, local);
        }
    }
    warp_sums[walk.slot] = walk.sum;
}

// A workgroup's part of the product. `held` has its first weights already.
// The reads for the next product are requested after the last reads of this one.
fn o_product(
    held: ptr<function, Held>,
    before: ptr<function, Columns>,
    ready: ptr<function, Ready>,
    next: ptr<function, Held>,
    group: u32,
    local: u32,
) {
    for (var round = 0u; round < O_ROUNDS; round++) {
        let own = round_of(O, group, round, local);
        if round > 0u {
            o_begin(held, group, round, local);
        }
        o_walk(held, own, local);
        if round + 1u == O_ROUNDS {
            *before = load_stream(local);
            *ready = attention_ready(local);
            gate_up_begin(next, group, 0u, local);
        }
        collect(O, own, local);
        store_attention(own.units.x, own.units.y - own.units.x, local);
    }
    workgroupBarrier();
}
