//! needs: constants WORKGROUP

// The largest of a workgroup's values and its id. Of equal values it takes the lowest id.
// There are only two rounds, because software adapters switch contexts at every barrier.

const BEST_STRIDE: u32 = 16u;
var<workgroup> best_values: array<f32, WORKGROUP>;
var<workgroup> best_ids: array<u32, WORKGROUP>;

// Writes the best of the values first, first + step, … < end to the place of the first.
fn gather_best(first: u32, step: u32, end: u32) {
    var best = best_values[first];
    var id = best_ids[first];
    for (var i = first + step; i < end; i += step) {
        let other = best_values[i];
        let other_id = best_ids[i];
        if other > best || (other == best && other_id < id) {
            best = other;
            id = other_id;
        }
    }
    best_values[first] = best;
    best_ids[first] = id;
}

// No id is 0xffffffff. The result is in best_values[0] and best_ids[0].
// Only the first invocation may read it.
fn find_best(best: f32, id: u32, local: u32) {
    best_values[local] = best;
    best_ids[local] = id;
    workgroupBarrier();
    if local < BEST_STRIDE {
        gather_best(local, BEST_STRIDE, WORKGROUP);
    }
    workgroupBarrier();
    if local == 0u {
        gather_best(0u, 1u, BEST_STRIDE);
    }
}
