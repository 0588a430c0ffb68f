//! needs: constants EXPERTS, LOGIT_STRIDE, TOP_K, WORKGROUP

// The TOP_K experts of each row with the largest logits, the largest first, and their weights:
//   weight = softmax over the chosen logits · per_expert_scale[expert]
// Of equal logits the first counts.
// An expert's rank is the number of experts that come before it.

@group(0) @binding(0) var<storage, read> logits: array<f32>;           // [rows, LOGIT_STRIDE]
@group(0) @binding(1) var<storage, read> per_expert_scale: array<f32>; // [EXPERTS]
@group(0) @binding(2) var<storage, read_write> chosen: array<u32>;     // [rows, TOP_K]
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;    // [rows, TOP_K]

var<workgroup> top_logits: array<f32, TOP_K>;
var<workgroup> top_experts: array<u32, TOP_K>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let base = group.x * LOGIT_STRIDE;
    for (var expert = local; expert < EXPERTS; expert += WORKGROUP) {
        let logit = logits[base + expert];
        var rank = 0u;
        for (var other = 0u; other < EXPERTS; other++) {
            let is_before = logits[base + other] > logit
                || (logits[base + other] == logit && other < expert);
            rank += select(0u, 1u, is_before);
        }
        if rank < TOP_K {
            top_logits[rank] = logit;
            top_experts[rank] = expert;
        }
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < TOP_K; i++) {
        sum += exp(top_logits[i] - top_logits[0]);
    }
    for (var i = local; i < TOP_K; i += WORKGROUP) {
        // A logit that is not a number has no rank. Its expert must exist all the same.
        let expert = min(top_experts[i], EXPERTS - 1u);
        let at = group.x * TOP_K + i;
        chosen[at] = expert;
        weights[at] = exp(top_logits[i] - top_logits[0]) / sum * per_expert_scale[expert];
    }
}
