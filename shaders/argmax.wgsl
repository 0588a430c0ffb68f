// sampled[slot] = the id with the largest logit, the lowest such id.

@group(0) @binding(0) var<storage, read> logits: array<f32>;           // [outputs, STRIDE]
@group(0) @binding(1) var<storage, read> outputs: array<u32>;          // [outputs]: rows of the step
@group(0) @binding(2) var<storage, read> rows: array<Row>;             // [rows]
@group(0) @binding(3) var<storage, read_write> sampled: array<u32>;    // [slots]

var<workgroup> best_values: array<f32, WORKGROUP>;
var<workgroup> best_ids: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let base = group.x * STRIDE;
    var best = -3.4e38;
    var id = 0xffffffffu;
    for (var i = local; i < N; i += WORKGROUP) {
        let value = logits[base + i];
        if value > best || (id == 0xffffffffu && value == value) {
            best = value;
            id = i;
        }
    }
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
    if local == 0u {
        // No id at all only if every logit is NaN.
        sampled[rows[outputs[group.x]].slot] = min(best_ids[0], N - 1u);
    }
}
