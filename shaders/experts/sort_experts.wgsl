//! needs: step; constants EXPERTS, TILE, TOP_K

// Sorts the pairs of a row and a chosen expert by expert, and cuts each expert's pairs in tiles.
// Pair p is that of row p / TOP_K. The order within an expert is any.
// One workgroup sorts the pairs of a step.

@group(0) @binding(0) var<storage, read> chosen: array<u32>;            // [rows, TOP_K]
@group(0) @binding(1) var<storage, read_write> pairs: array<u32>;       // [rows · TOP_K], sorted
// [tiles]: expert, first place in `pairs`, count. Tiles past the end have a count of 0.
@group(0) @binding(2) var<storage, read_write> tiles: array<vec4<u32>>;
@group(0) @binding(3) var<uniform> step: Step;

const WORKGROUP: u32 = 256u;
// For each expert the number of its pairs, and later the place of its next pair.
var<workgroup> counts: array<atomic<u32>, EXPERTS>;
var<workgroup> firsts: array<u32, EXPERTS>;
var<workgroup> tile_total: u32;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) local: u32) {
    let pair_count = step.rows * TOP_K;
    for (var expert = local; expert < EXPERTS; expert += WORKGROUP) {
        atomicStore(&counts[expert], 0u);
    }
    workgroupBarrier();
    for (var pair = local; pair < pair_count; pair += WORKGROUP) {
        atomicAdd(&counts[chosen[pair]], 1u);
    }
    workgroupBarrier();
    for (var expert = local; expert < EXPERTS; expert += WORKGROUP) {
        var first = 0u;
        var tile = 0u;
        for (var other = 0u; other < expert; other++) {
            let count = atomicLoad(&counts[other]);
            first += count;
            tile += (count + TILE - 1u) / TILE;
        }
        firsts[expert] = first;
        let count = atomicLoad(&counts[expert]);
        for (var begin = 0u; begin < count; begin += TILE) {
            tiles[tile] = vec4<u32>(expert, first + begin, min(count - begin, TILE), 0u);
            tile += 1u;
        }
        if expert == EXPERTS - 1u {
            tile_total = tile;
        }
    }
    workgroupBarrier();
    for (var expert = local; expert < EXPERTS; expert += WORKGROUP) {
        atomicStore(&counts[expert], firsts[expert]);
    }
    // The most tiles that the pairs can need.
    let used = min(pair_count, EXPERTS);
    let most = used + (pair_count - used) / TILE;
    for (var tile = tile_total + local; tile < most; tile += WORKGROUP) {
        tiles[tile] = vec4<u32>();
    }
    workgroupBarrier();
    for (var pair = local; pair < pair_count; pair += WORKGROUP) {
        pairs[atomicAdd(&counts[chosen[pair]], 1u)] = pair;
    }
}
