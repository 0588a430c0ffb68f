// The largest of a workgroup's values and its id, the lowest among equals.

var<workgroup> best_values: array<f32, WORKGROUP>;
var<workgroup> best_ids: array<u32, WORKGROUP>;

// No id is 0xffffffff. The result stands in best_values[0] and best_ids[0].
fn find_best(best: f32, id: u32, local: u32) {
    best_values[local] = best;
    best_ids[local] = id;
    workgroupBarrier();
    for (var step = WORKGROUP / 2u; step > 0u; step >>= 1u) {
        if local < step {
            let other = best_values[local + step];
            let other_id = best_ids[local + step];
            let mine = best_values[local];
            if other > mine || (other == mine && other_id < best_ids[local]) {
                best_values[local] = other;
                best_ids[local] = other_id;
            }
        }
        workgroupBarrier();
    }
}
