//! needs: constants HEADS, KEYS_EACH, KEY_LANES, KEY_CLUSTERS, LANE_SCORES, PARTS, SUBGROUP, TILE

// Softmax for sdpa_decode, where the invocations of a subgroup are contiguous.
// Subgroup operations sum the scores. Each subgroup computes the weights of one head.

var<workgroup> scores: array<f32, HEADS * TILE>;

// The score of a key is the sum of the terms of eight neighbouring invocations.
fn store_scores(parts: array<f32, HEADS * KEYS_EACH>, local: u32) {
    for (var h = 0u; h < HEADS; h++) { // unrolled
        for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
            var score = parts[h * KEYS_EACH + j];
            score += subgroupShuffleXor(score, 1u);
            score += subgroupShuffleXor(score, 2u);
            score += subgroupShuffleXor(score, 4u);
            if local % KEY_LANES == 0u {
                scores[h * TILE + local / KEY_LANES + j * KEY_CLUSTERS] = score;
            }
        }
    }
}

// The weights of a tile for the head with the number of this subgroup.
// The softmax reference is the largest score so far.
fn weigh_keys(before: Softmax, count: u32, local: u32) -> Softmax {
    let head = local / SUBGROUP;
    let lane = local % SUBGROUP;
    if head >= HEADS {
        return before;
    }
    var own = array<f32, LANE_SCORES>();
    var largest = before.maximum;
    for (var j = 0u; j < LANE_SCORES; j++) { // unrolled
        let key = lane + j * SUBGROUP;
        own[j] = select(LOWEST, scores[head * TILE + min(key, TILE - 1u)], key < count);
        largest = max(largest, own[j]);
    }
    largest = subgroupMax(largest);
    let rescale = exp(before.maximum - largest);
    var total = before.total * rescale;
    for (var j = 0u; j < LANE_SCORES; j++) { // unrolled
        let key = lane + j * SUBGROUP;
        let weight = select(0.0, exp(own[j] - largest), key < count);
        if key < TILE {
            weights[key * HEADS + head] = weight;
        }
        total += weight;
    }
    if lane == 0u {
        rescales[head] = rescale;
    }
    return Softmax(largest, total);
}

fn store_softmax(softmax: Softmax, first_part: u32, local: u32) {
    let total = subgroupAdd(softmax.total);
    if local / SUBGROUP < HEADS && local % SUBGROUP == 0u {
        softmax_stats[first_part + local / SUBGROUP * PARTS] = vec2<f32>(softmax.maximum, total);
    }
}
