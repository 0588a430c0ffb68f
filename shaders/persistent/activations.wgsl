//! needs: exchange; constants MOST_COLS, QUANTS_PER, WORKGROUP

// The activations of the current product, as int8 with 16 in each vector.
// Each group of 32 has its scale and 8 · scale · sum. All workgroups contribute to them.

var<workgroup> x_quants: array<vec4<u32>, MOST_COLS / 16u>;
var<workgroup> x_groups: array<vec2<f32>, MOST_COLS / 32u>;
// The factor that products of x_quants still need.
var<private> x_factor: f32;

fn gather_words(word: u32) -> vec4<u32> {
    return vec4<u32>(
        word,
        subgroupShuffleXor(word, 1u),
        subgroupShuffleXor(word, 2u),
        subgroupShuffleXor(word, 3u),
    );
}

// Stores group `group` of `count` groups, which eight lanes hold, as a vector of int8.
fn store_group(
    vector: u32,
    count: u32,
    group: u32,
    words: vec4<u32>,
    scale_sum: vec2<f32>,
    lane: u32,
) {
    let at = own_set() + vector;
    if lane % 4u == 0u && lane < 8u {
        exchange[at + group * 2u + lane / 4u] = words;
    }
    if lane == 0u {
        let pair = present(vec4<f32>(scale_sum, vec2<f32>()));
        exchange[at + count * 2u + group / 2u][group % 2u * 2u] = pair.x;
        exchange[at + count * 2u + group / 2u][group % 2u * 2u + 1u] = pair.y;
    }
}

// Writes a group of 32, which eight lanes hold, to workgroup memory.
fn keep_group(group: u32, words: vec4<u32>, scale_sum: vec2<f32>, lane: u32) {
    if lane % 4u == 0u && lane < 8u {
        x_quants[group * 2u + lane / 4u] = words;
    }
    if lane == 0u {
        x_groups[group] = scale_sum * vec2<f32>(1.0, 8.0);
    }
}

// Loads a vector of int8 with `count` groups, as soon as it has been written.
fn load_vector(vector: u32, count: u32, local: u32) {
    let at = own_set() + vector;
    let pair_at = at + count * 2u + local;
    var pair = vec4<u32>();
    if local < count / 2u {
        pair = exchange[pair_at];
    }
    var quants = array<vec4<u32>, QUANTS_PER>();
    for (var p = 0u; p < QUANTS_PER; p++) { // unrolled
        if local + p * WORKGROUP < count * 2u {
            quants[p] = exchange[at + local + p * WORKGROUP];
        }
    }
    for (var p = 0u; p < QUANTS_PER; p++) { // unrolled
        let i = local + p * WORKGROUP;
        if i < count * 2u {
            x_quants[i] = spin_load(quants[p], at + i);
        }
    }
    if local < count / 2u {
        let both = bitcast<vec4<f32>>(spin_load(pair, pair_at));
        x_groups[local * 2u] = both.xy * vec2<f32>(1.0, 8.0);
        x_groups[local * 2u + 1u] = both.zw * vec2<f32>(1.0, 8.0);
    }
    workgroupBarrier();
}
