//! needs: vec8; constants D, EPS, HEAD_ROWS, LANE_ITEMS, SUBGROUP, WORKGROUP

// Head norms for heads_raw and heads_query, where the invocations of a subgroup are contiguous.
// Each subgroup normalizes one head.

fn norm_and_rope(row: u32, position: u32, first_head: u32, kv_head: u32, local: u32) {
    for (var head = local / SUBGROUP; head < HEAD_ROWS; head += WORKGROUP / SUBGROUP) {
        let source = item_source(row, first_head, kv_head, head, 0u);
        var items = array<Vec8, LANE_ITEMS>();
        var squares = 0.0;
        for (var j = 0u; j < LANE_ITEMS; j++) { // unrolled
            let i4 = local % SUBGROUP + j * SUBGROUP;
            if i4 < VEC8S {
                items[j] = Vec8(qkv[source + i4], qkv[source + VEC8S + i4]);
                squares += dot(items[j].lo, items[j].lo) + dot(items[j].hi, items[j].hi);
            }
        }
        let normed = inverseSqrt(subgroupAdd(squares) / f32(D) + EPS);
        for (var j = 0u; j < LANE_ITEMS; j++) { // unrolled
            let i4 = local % SUBGROUP + j * SUBGROUP;
            if i4 < VEC8S {
                store_item(items[j], normed, head, i4, position);
            }
        }
    }
}
