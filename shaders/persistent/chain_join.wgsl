// Joins the parts that sdpa_decode made of attention, which sdpa_combine does elsewhere.

const FOURS: u32 = D / 4u;
// Lanes that have parts of the same four columns.
const PART_LANES: u32 = SUBGROUP / 8u;
const PARTS_AHEAD: u32 = 4u;
const LOWEST: f32 = -3.0e38;

struct Joined {
    largest: f32,
    total: f32,
    sum: vec4<f32>,
}

// A lane's parts of four columns of a head.
fn own_parts(head: u32, four: u32, parts: u32) -> Joined {
    var joined = Joined(LOWEST, 0.0, vec4<f32>());
    for (var at = team_lane / 8u; at < parts; at += PARTS_AHEAD * PART_LANES) {
        var held = array<vec4<f32>, PARTS_AHEAD>();
        var norm = array<vec2<f32>, PARTS_AHEAD>();
        for (var i = 0u; i < PARTS_AHEAD; i++) { // unrolled
            let part = head * PARTS + min(at + i * PART_LANES, parts - 1u);
            norm[i] = norms[part];
            held[i] = sums[part * FOURS + four];
        }
        var largest = joined.largest;
        for (var i = 0u; i < PARTS_AHEAD; i++) { // unrolled
            largest = max(largest, norm[i].x);
        }
        joined = weighed(joined, largest);
        for (var i = 0u; i < PARTS_AHEAD; i++) { // unrolled
            let weight = select(0.0, exp(norm[i].x - largest), at + i * PART_LANES < parts);
            joined.total += weight * norm[i].y;
            joined.sum += weight * held[i];
        }
    }
    return joined;
}

// The same in terms of another maximum.
fn weighed(joined: Joined, largest: f32) -> Joined {
    let factor = exp(joined.largest - largest);
    return Joined(largest, joined.total * factor, joined.sum * factor);
}

// A workgroup's share of attention's output: each team has 32 columns, of which eight lanes have
// four each, and several so many parts.
fn join_attention(group: u32) {
    let end = (group + 1u) * o_GROUPS / WORKGROUPS;
    for (var own = group * o_GROUPS / WORKGROUPS + team_index; own < end; own += team_count) {
        let four = own * 8u % FOURS + team_lane % 8u;
        var joined = own_parts(own * 8u / FOURS, four, part_count(rows[0].position));
        var largest = joined.largest;
        for (var i = 0u; i < PART_STEPS; i++) { // unrolled
            largest = max(largest, subgroupShuffleXor(largest, 8u << i));
        }
        joined = weighed(joined, largest);
        for (var i = 0u; i < PART_STEPS; i++) { // unrolled
            joined.total += subgroupShuffleXor(joined.total, 8u << i);
            joined.sum += subgroupShuffleXor(joined.sum, 8u << i);
        }
        let q8 = quantize_lanes(joined.sum / joined.total);
        keep_group(ATTENTION, o_GROUPS, own, four_words(q8.word), q8.group, team_lane);
    }
}
