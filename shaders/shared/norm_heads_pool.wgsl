//! needs: octet; constants D, EPS, HEAD_ROWS, ITEMS_EACH, WORKGROUP
// For heads_raw and heads_query without subgroup operations.

const ITEMS: u32 = HEAD_ROWS * OCTETS;
const EIGHTS: u32 = (OCTETS + 7u) / 8u;
var<workgroup> squares: array<f32, HEAD_ROWS * EIGHTS>;

fn norm_and_turn(row: u32, position: u32, first_head: u32, kv_head: u32, local: u32) {
    var items = array<Octet, ITEMS_EACH>();
    for (var j = 0u; j < ITEMS_EACH; j++) { // unrolled
        let item = local + j * WORKGROUP;
        if item < ITEMS {
            let source = item_source(row, first_head, kv_head, item / OCTETS, item % OCTETS);
            items[j] = Octet(qkv[source], qkv[source + OCTETS]);
            scores[item] = dot(items[j].lo, items[j].lo) + dot(items[j].hi, items[j].hi);
        }
    }
    workgroupBarrier();
    for (var i = local; i < HEAD_ROWS * EIGHTS; i += WORKGROUP) {
        let first = (i % EIGHTS) * 8u;
        var sum = 0.0;
        for (var four = first; four < min(first + 8u, OCTETS); four++) {
            sum += scores[(i / EIGHTS) * OCTETS + four];
        }
        squares[i] = sum;
    }
    workgroupBarrier();
    for (var j = 0u; j < ITEMS_EACH; j++) { // unrolled
        let item = local + j * WORKGROUP;
        if item < ITEMS {
            let head = item / OCTETS;
            var sum = 0.0;
            for (var i = 0u; i < EIGHTS; i++) {
                sum += squares[head * EIGHTS + i];
            }
            keep_item(items[j], inverseSqrt(sum / f32(D) + EPS), head, item % OCTETS, position);
        }
    }
}
