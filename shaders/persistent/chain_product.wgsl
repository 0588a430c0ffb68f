// A matrix of the chain, NAME: int4 in groups of 32, symmetric, in the order of weight_place.wgsl.
// Its rows go in tiles of 16, which workgroups take in whole units of NAME_UNIT tiles. In a
// workgroup every team of 32 invocations has an equal share of all that is to be read, pairs of
// groups of one tile after another, so that nobody waits for anybody before the end. SQUAD teams
// take turns at the pairs of one stretch: what is read at the same time lies together.

const NAME_PAIRS: u32 = NAME_GROUPS / 2u;
const NAME_UNITS: u32 = NAME_ROWS / (16u * NAME_UNIT);
// Pairs that a team takes in a round.
const NAME_SHARE: u32 = (NAME_MOST_UNITS * NAME_UNIT * NAME_PAIRS + TEAM_COUNT - 1u) / TEAM_COUNT;
const NAME_STRETCH: u32 = NAME_SHARE * SQUAD;

// Weights that are on their way, or there.
struct NAME_Held {
    quants: array<vec4<u32>, NAME_DEPTH>,
    pairs: array<u32, NAME_DEPTH>,
}

// What a team does in a round.
struct NAME_Round {
    units: vec2<u32>, // first, end
    stretch: u32,     // the squad's first pair, counted from the round's first tile on
    pairs: vec2<u32>, // the team's first, the squad's end
}

fn NAME_round(group: u32, round: u32, local: u32) -> NAME_Round {
    let end = (group + 1u) * NAME_UNITS / WORKGROUPS;
    let first = min(group * NAME_UNITS / WORKGROUPS + round * NAME_MOST_UNITS, end);
    let units = vec2<u32>(first, min(first + NAME_MOST_UNITS, end));
    let pairs = (units.y - units.x) * NAME_UNIT * NAME_PAIRS;
    let stretch = local / 32u / SQUAD * NAME_STRETCH;
    let pair = stretch + local / 32u % SQUAD;
    return NAME_Round(units, stretch, vec2<u32>(pair, min(stretch + NAME_STRETCH, pairs)));
}

// The place of pair `at` of a round, counted in pairs from the matrix's beginning.
fn NAME_place(units: vec2<u32>, at: u32) -> u32 {
    if NAME_GATED {
        // First the tiles of gate, then those of up.
        let half = (units.y - units.x) * (NAME_UNIT / 2u) * NAME_PAIRS;
        let gate = units.x * (NAME_UNIT / 2u) * NAME_PAIRS + at;
        return select(gate, gate - half + NAME_ROWS / 32u * NAME_PAIRS, at >= half);
    }
    return units.x * NAME_UNIT * NAME_PAIRS + at;
}

fn NAME_four(place: u32, local: u32) -> vec4<u32> {
    if NAME_TILED {
        return NAME_data[place * 32u + local % 32u];
    }
    let row = place / NAME_PAIRS * 16u + local % 16u;
    return NAME_data[row * NAME_GROUPS + place % NAME_PAIRS * 2u + local / 16u % 2u];
}

// The scales of a pair of groups.
fn NAME_pair(place: u32, local: u32) -> u32 {
    if NAME_TILED {
        return NAME_scales[place * 16u + local % 16u];
    }
    return NAME_scales[(place / NAME_PAIRS * 16u + local % 16u) * NAME_PAIRS + place % NAME_PAIRS];
}

fn NAME_fetch(held: ptr<function, NAME_Held>, own: NAME_Round, at: u32, i: u32, local: u32) {
    if at < own.pairs.y {
        let place = NAME_place(own.units, at);
        (*held).quants[i] = NAME_four(place, local);
        (*held).pairs[i] = NAME_pair(place, local);
    }
}

// Starts to read what a round needs first.
fn NAME_begin(held: ptr<function, NAME_Held>, group: u32, round: u32, local: u32) {
    let own = NAME_round(group, round, local);
    for (var i = 0u; i < NAME_DEPTH; i++) { // unrolled
        NAME_fetch(held, own, own.pairs.x + i * SQUAD, i, local);
    }
}

// This invocation's parts of its rows' products from x_quants, into team_sums: of as many tiles as
// its squad works at. Whatever is taken from `held` is replaced at once by what comes next.
// (NVIDIA's compiler waits for that at the loop's end all the same.)
fn NAME_walk(held: ptr<function, NAME_Held>, own: NAME_Round, local: u32) {
    var place = local / 32u * TEAM_PITCH + local % 32u;
    for (var i = 0u; i < SLOTS; i++) { // unrolled
        team_sums[place + i * 32u] = 0.0;
    }
    // The second half of a team has the second group of each pair.
    let high = local & 16u;
    var at = own.pairs.x;
    var tile_end = (own.stretch / NAME_PAIRS + 1u) * NAME_PAIRS;
    var sum = 0.0;
    for (var step = 0u; step < NAME_SHARE; step += NAME_DEPTH) {
        for (var i = 0u; i < NAME_DEPTH; i++) { // unrolled
            let quants = (*held).quants[i];
            let scale = unpack2x16float((*held).pairs[i] >> high).x;
            NAME_fetch(held, own, at + NAME_DEPTH * SQUAD, i, local);
            if at < own.pairs.y {
                if at >= tile_end {
                    team_sums[place] = sum;
                    place += 32u;
                    tile_end += NAME_PAIRS;
                    sum = 0.0;
                }
                sum += group_product(quants, scale, (at + NAME_PAIRS - tile_end) * 2u + high / 16u);
            }
            at += SQUAD;
        }
    }
    team_sums[place] = sum;
}

// The sums of a round's rows, into row_sums.
fn NAME_collect(own: NAME_Round, local: u32) {
    workgroupBarrier();
    let row = local / NAME_LANES;
    let tile = row / 16u;
    // Squads that worked at the tile: two halves of each team.
    let first = tile * NAME_PAIRS / NAME_STRETCH;
    let end = min(((tile + 1u) * NAME_PAIRS - 1u) / NAME_STRETCH + 1u, TEAM_COUNT / SQUAD);
    var sum = 0.0;
    if tile < (own.units.y - own.units.x) * NAME_UNIT {
        for (var part = first * SQUAD * 2u + local % NAME_LANES; part < end * SQUAD * 2u; part += NAME_LANES) {
            let team = part / 2u;
            let slot = tile - team / SQUAD * NAME_STRETCH / NAME_PAIRS;
            sum += team_sums[team * TEAM_PITCH + slot * 32u + part % 2u * 16u + row % 16u];
        }
    }
    if NAME_LANES > 1u {
        sum += subgroupShuffleXor(sum, 1u);
    }
    if NAME_LANES > 2u {
        sum += subgroupShuffleXor(sum, 2u);
    }
    if NAME_LANES > 4u {
        sum += subgroupShuffleXor(sum, 4u);
    }
    if local % NAME_LANES == 0u && row < TEAM_COUNT * 16u {
        row_sums[row] = sum;
    }
    workgroupBarrier();
}

// A workgroup's part of the product, whose first weights are `held` already. What FOLLOWS is
// started to be read as soon as nothing of this product is left to read.
fn NAME_product(held: ptr<function, NAME_Held>, FOLLOWING group: u32, local: u32) {
    for (var round = 0u; round < NAME_ROUNDS; round++) {
        let own = NAME_round(group, round, local);
        if round > 0u {
            NAME_begin(held, group, round, local);
        }
        NAME_walk(held, own, local);
        if round + 1u == NAME_ROUNDS {
            FOLLOWS
        }
        NAME_collect(own, local);
        NAME_KEEP(own.units.x, own.units.y - own.units.x, local);
    }
    workgroupBarrier();
}
