//! needs: product; constants QKV_ROWS, QKV_GROUPS, QKV_UNIT, QKV_MOST_UNITS,
//! QKV_ROUNDS, QKV_LANES, QKV_INTERLEAVED16, DEPTH, CLUSTER

// Queries, keys and values of the next layer.

const QKV_PAIRS: u32 = QKV_GROUPS / 2u;
// Pairs that a warp takes in a round.
const QKV_SHARE: u32 = (QKV_MOST_UNITS * QKV_UNIT * QKV_PAIRS + WARPS - 1u) / WARPS;
const QKV: Matrix = Matrix(
    QKV_ROWS,
    QKV_PAIRS,
    QKV_UNIT,
    QKV_ROWS / (16u * QKV_UNIT),
    QKV_MOST_UNITS,
    QKV_SHARE * CLUSTER,
    QKV_LANES,
    QKV_INTERLEAVED16,
    false,
);

fn qkv_fetch(held: ptr<function, Held>, own: Round, at: u32, i: u32, local: u32) {
    if at < own.pairs.y {
        let place = place_of(QKV, own.units, at);
        (*held).quants[i] = qkv_data[data_index(QKV, place, local)];
        (*held).pairs[i] = qkv_scales[scale_index(QKV, place, local)];
    }
}

// Requests the first weights of a round.
fn qkv_begin(held: ptr<function, Held>, group: u32, round: u32, local: u32) {
    let own = round_of(QKV, group, round, local);
    for (var i = 0u; i < DEPTH; i++) { // unrolled
        qkv_fetch(held, own, own.pairs.x + i * CLUSTER, i, local);
    }
}

// Adds this invocation's parts of its rows' products to warp_sums.
// Each element of `held` is requested anew as soon as it has been used.
// NVIDIA's compiler waits for these loads at the end of the loop.
fn qkv_walk(held: ptr<function, Held>, own: Round, local: u32) {
    var walk = begin_walk(QKV, own, local);
    for (var step = 0u; step < QKV_SHARE; step += DEPTH) {
        for (var i = 0u; i < DEPTH; i++) { // unrolled
            let quants = (*held).quants[i];
            let pair = (*held).pairs[i];
            qkv_fetch(held, own, walk.at + DEPTH * CLUSTER, i, local);
            take_pair(&walk, QKV, own, quants, pair, local);
        }
    }
    warp_sums[walk.slot] = walk.sum;
}

// A workgroup's part of the product. `held` has its first weights already.
fn qkv_product(held: ptr<function, Held>, group: u32, local: u32) {
    for (var round = 0u; round < QKV_ROUNDS; round++) {
        let own = round_of(QKV, group, round, local);
        if round > 0u {
            qkv_begin(held, group, round, local);
        }
        qkv_walk(held, own, local);
        collect(QKV, own, local);
        store_qkv(own.units.x, own.units.y - own.units.x, local);
    }
    workgroupBarrier();
}
