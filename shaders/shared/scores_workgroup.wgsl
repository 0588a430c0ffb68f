//! needs: constants HEADS, HEAD_ROWS, KEYS_EACH, KEY_LANES, KEY_CLUSTERS, PARTS, SCORES_EACH,
//! SCORE_LANES, TILE

// Softmax for sdpa_decode without subgroup operations. It sums the scores in workgroup memory.
// SCORE_LANES neighbouring invocations share a head.

// Padded so that neither writes nor reads have bank conflicts.
const SCORE_PITCH: u32 = HEADS * TILE + 4u;
// This memory also holds the squares for the norms of heads.
var<workgroup> scores: array<f32, max(KEY_LANES * SCORE_PITCH, HEAD_ROWS * VEC8S)>;
var<workgroup> lanes: array<f32, HEADS * SCORE_LANES>;

fn store_scores(parts: array<f32, HEADS * KEYS_EACH>, local: u32) {
    for (var h = 0u; h < HEADS; h++) { // unrolled
        for (var j = 0u; j < KEYS_EACH; j++) { // unrolled
            let at = local % KEY_LANES * SCORE_PITCH + h * TILE + local / KEY_LANES
                + j * KEY_CLUSTERS;
            scores[at] = parts[h * KEYS_EACH + j];
        }
    }
}

// The weights of a tile. The softmax reference is the largest score so far.
fn weigh_keys(before: Softmax, count: u32, local: u32) -> Softmax {
    let head = local / SCORE_LANES;
    let lane = local % SCORE_LANES;
    var own = array<f32, SCORES_EACH>();
    if head < HEADS {
        var largest = LOWEST;
        for (var j = 0u; j < SCORES_EACH; j++) { // unrolled
            let key = lane + j * SCORE_LANES;
            var score = 0.0;
            for (var part = 0u; part < KEY_LANES; part++) {
                score += scores[part * SCORE_PITCH + head * TILE + key];
            }
            own[j] = select(LOWEST, score, key < count);
            largest = max(largest, own[j]);
        }
        lanes[local] = largest;
    }
    workgroupBarrier();
    var after = before;
    if head < HEADS {
        for (var j = 0u; j < SCORE_LANES; j++) {
            after.maximum = max(after.maximum, lanes[head * SCORE_LANES + j]);
        }
        let rescale = exp(before.maximum - after.maximum);
        after.total *= rescale;
        for (var j = 0u; j < SCORES_EACH; j++) { // unrolled
            let weight = exp(own[j] - after.maximum);
            weights[(lane + j * SCORE_LANES) * HEADS + head] = weight;
            after.total += weight;
        }
        if lane == 0u {
            rescales[head] = rescale;
        }
    }
    return after;
}

fn store_softmax(softmax: Softmax, first_part: u32, local: u32) {
    if local < HEADS * SCORE_LANES {
        lanes[local] = softmax.total;
    }
    workgroupBarrier();
    let head = local / SCORE_LANES;
    if head < HEADS && local % SCORE_LANES == 0u {
        var total = 0.0;
        for (var j = 0u; j < SCORE_LANES; j++) {
            total += lanes[local + j];
        }
        softmax_stats[first_part + head * PARTS] = vec2<f32>(softmax.maximum, total);
    }
}
