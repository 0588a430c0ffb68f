//! needs: pairs_of_tile, gelu, scales, vec8, weights; constants COLS, EXPERTS, FEATURES,
//! FIRST_EXPERT, GATED, GROUP, INTERLEAVED16, LANES, SHARE, TILE, Y_STRIDE

// y[pair] = W[expert of the pair] · x[pair / SHARE] for a few pairs of each expert.
// With GATED, an expert has FEATURES rows of gate and as many of up, and
//   y[pair] = gelu(gate · x) · (up · x).
// A workgroup has 16 features of a tile's expert, and LANES invocations divide the columns of each.
// Weights are read once for the whole tile. Activations are f32.

@group(0) @binding(0) var<storage, read> data: array<u32>;         // [EXPERTS · rows, DATA_WORDS]
@group(0) @binding(1) var<storage, read> scales: array<ScaleUnit>; // [EXPERTS · rows, SCALE_WORDS]
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;      // [pairs / SHARE, COLS / 4]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;      // [pairs, Y_STRIDE]

const RUN: u32 = 16u; // features of a workgroup
const ROWS: u32 = select(FEATURES, 2u * FEATURES, GATED); // of an expert
const BLOCK: u32 = min(GROUP, 32u); // columns with one scale that are processed together
var<workgroup> partial: array<vec2<f32>, TILE * RUN * LANES>;

fn place(feature: u32, lane: u32) -> u32 {
    // Neighbouring invocations read neighbouring words.
    return select(feature * LANES + lane, lane * RUN + feature, INTERLEAVED16);
}

fn scaled8(row: u32, vec8: u32, scale: vec2<f32>) -> Vec8 {
    let quants = quants8(row, vec8);
    return Vec8(quants.lo * scale.x + scale.y, quants.hi * scale.x + scale.y);
}

@compute @workgroup_size(RUN * LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = tile_of(group.y);
    let expert = tile.expert - FIRST_EXPERT;
    if tile.count == 0u || expert >= EXPERTS {
        return;
    }
    let feature = select(local / LANES, local % RUN, INTERLEAVED16);
    let lane = select(local % LANES, local / RUN, INTERLEAVED16);
    // Features past the end repeat the last one. Their results are not stored.
    let row = expert * ROWS + min(group.x * RUN + feature, FEATURES - 1u);
    // Places past the tile's end repeat its last pair.
    var bases = array<u32, TILE>();
    for (var i = 0u; i < TILE; i++) {
        bases[i] = pair_at(tile.first + min(i, tile.count - 1u)) / SHARE * (COLS / 4u);
    }
    var sums = array<vec2<f32>, TILE>();
    for (var block = lane; block < COLS / BLOCK; block += LANES) {
        let group_of_block = block * BLOCK / GROUP;
        let scale = scale_of(row, group_of_block);
        var up_scale = vec2<f32>();
        if GATED {
            up_scale = scale_of(row + FEATURES, group_of_block);
        }
        for (var i = 0u; i < BLOCK / 8u; i++) {
            let vec8 = block * (BLOCK / 8u) + i;
            let gate = scaled8(row, vec8, scale);
            var up = Vec8();
            if GATED {
                up = scaled8(row + FEATURES, vec8, up_scale);
            }
            for (var pair = 0u; pair < TILE; pair++) { // unrolled
                let lo = x[bases[pair] + vec8 * 2u];
                let hi = x[bases[pair] + vec8 * 2u + 1u];
                sums[pair] += vec2<f32>(
                    dot(gate.lo, lo) + dot(gate.hi, hi), dot(up.lo, lo) + dot(up.hi, hi),
                );
            }
        }
    }
    for (var pair = 0u; pair < TILE; pair++) { // unrolled
        partial[pair * RUN * LANES + place(feature, lane)] = sums[pair];
    }
    workgroupBarrier();
    for (var result = local; result < TILE * RUN; result += RUN * LANES) {
        let pair = result / RUN;
        let n = group.x * RUN + result % RUN;
        var sum = vec2<f32>();
        for (var i = 0u; i < LANES; i++) {
            sum += partial[pair * RUN * LANES + place(result % RUN, i)];
        }
        if pair < tile.count && n < FEATURES {
            let value = select(sum.x, gelu_tanh(sum.x) * sum.y, GATED);
            y[pair_at(tile.first + pair) * Y_STRIDE + n] = value;
        }
    }
}
