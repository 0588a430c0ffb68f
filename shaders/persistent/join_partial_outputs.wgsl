//! needs: activations, key_range, q8_subgroup, reduce; constants D, MOST_JOINED, O_GROUPS, PARTS,
//! PART_STEPS, SUBGROUP, WORKGROUPS

// Combines the partial outputs of sdpa_decode. Without a persistent kernel sdpa_combine does this.

const VEC4S: u32 = D / 4u;
// Lanes that hold partial outputs of the same four columns.
const PART_LANES: u32 = SUBGROUP / 8u;
const PARTS_AHEAD: u32 = 4u;
const LOWEST: f32 = -3.0e38;

struct Joined {
    largest: f32,
    total: f32,
    sum: vec4<f32>,
}

// A lane's partial outputs for four columns of a head, combined.
fn own_parts(head: u32, vec4_index: u32, parts: u32) -> Joined {
    var joined = Joined(LOWEST, 0.0, vec4<f32>());
    for (var at = subgroup_lane / 8u; at < parts; at += PARTS_AHEAD * PART_LANES) {
        var held = array<vec4<f32>, PARTS_AHEAD>();
        var stats = array<vec2<f32>, PARTS_AHEAD>();
        for (var i = 0u; i < PARTS_AHEAD; i++) { // unrolled
            stats[i] = vec2<f32>(LOWEST, 0.0);
            // Where few parts are usual, most of these loads are left out.
            if MOST_JOINED == 0u || at + i * PART_LANES < parts {
                let part = head * PARTS + min(at + i * PART_LANES, parts - 1u);
                stats[i] = softmax_stats[part];
                held[i] = partial_outputs[part * VEC4S + vec4_index];
            }
        }
        var largest = joined.largest;
        for (var i = 0u; i < PARTS_AHEAD; i++) { // unrolled
            largest = max(largest, stats[i].x);
        }
        joined = rescaled(joined, largest);
        for (var i = 0u; i < PARTS_AHEAD; i++) { // unrolled
            let weight = select(0.0, exp(stats[i].x - largest), at + i * PART_LANES < parts);
            joined.total += weight * stats[i].y;
            joined.sum += weight * held[i];
        }
    }
    return joined;
}

// The same relative to another maximum.
fn rescaled(joined: Joined, largest: f32) -> Joined {
    let factor = exp(joined.largest - largest);
    return Joined(largest, joined.total * factor, joined.sum * factor);
}

// Computes attention's output, with 32 columns for each subgroup.
// Eight lanes have four columns each, and take every PART_LANES-th partial output.
// A workgroup has a share of the columns, which it exchanges with the others.
// If there are few partial outputs, it has all columns, and writes them to its own memory.
// Returns whether it has all.
fn join_attention(group: u32) -> bool {
    let parts = part_count(rows[0].position);
    let has_all = MOST_JOINED > 0u && parts <= MOST_JOINED;
    let first = select(group * O_GROUPS / WORKGROUPS, 0u, has_all);
    let end = select((group + 1u) * O_GROUPS / WORKGROUPS, O_GROUPS, has_all);
    for (var own = first + subgroup_index; own < end; own += subgroup_count) {
        let vec4_index = own * 8u % VEC4S + subgroup_lane % 8u;
        var joined = own_parts(own * 8u / VEC4S, vec4_index, parts);
        var largest = joined.largest;
        for (var i = 0u; i < PART_STEPS; i++) { // unrolled
            largest = max(largest, subgroupShuffleXor(largest, 8u << i));
        }
        joined = rescaled(joined, largest);
        for (var i = 0u; i < PART_STEPS; i++) { // unrolled
            joined.total += subgroupShuffleXor(joined.total, 8u << i);
            joined.sum += subgroupShuffleXor(joined.sum, 8u << i);
        }
        let q8 = quantize_vec4(joined.sum / joined.total);
        let words = gather_words(q8.word);
        if has_all {
            keep_group(own, words, q8.group, subgroup_lane);
        } else {
            store_group(ATTENTION, O_GROUPS, own, words, q8.group, subgroup_lane);
        }
    }
    return has_all;
}
