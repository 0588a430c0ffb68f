//! needs: vec8; constants D, EPS, HEAD_ROWS, ITEMS_EACH, WORKGROUP

// Head norms for heads_raw and heads_query without subgroup operations.

const ITEMS: u32 = HEAD_ROWS * VEC8S;
const VEC8_RUNS: u32 = (VEC8S + 7u) / 8u;
var<workgroup> squares: array<f32, HEAD_ROWS * VEC8_RUNS>;

fn norm_and_rope(row: u32, position: u32, first_head: u32, kv_head: u32, local: u32) {
    var items = array<Vec8, ITEMS_EACH>();
    for (var j = 0u; j < ITEMS_EACH; j++) { // unrolled
        let item = local + j * WORKGROUP;
        if item < ITEMS {
            let source = item_source(row, first_head, kv_head, item / VEC8S, item % VEC8S);
            items[j] = Vec8(qkv[source], qkv[source + VEC8S]);
            scores[item] = dot(items[j].lo, items[j].lo) + dot(items[j].hi, items[j].hi);
        }
    }
    workgroupBarrier();
    for (var i = local; i < HEAD_ROWS * VEC8_RUNS; i += WORKGROUP) {
        let first = (i % VEC8_RUNS) * 8u;
        var sum = 0.0;
        for (var i4 = first; i4 < min(first + 8u, VEC8S); i4++) {
            sum += scores[(i / VEC8_RUNS) * VEC8S + i4];
        }
        squares[i] = sum;
    }
    workgroupBarrier();
    for (var j = 0u; j < ITEMS_EACH; j++) { // unrolled
        let item = local + j * WORKGROUP;
        if item < ITEMS {
            let head = item / VEC8S;
            var sum = 0.0;
            for (var i = 0u; i < VEC8_RUNS; i++) {
                sum += squares[head * VEC8_RUNS + i];
            }
            store_item(items[j], inverseSqrt(sum / f32(D) + EPS), head, item % VEC8S, position);
        }
    }
}
