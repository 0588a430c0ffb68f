//! needs: octet; constants D, EPS, HEAD_ROWS, LANE_ITEMS, SUBGROUP, WORKGROUP
// For heads_raw and heads_query, where subgroups are neighbours: a subgroup norms a head on its
// own.

fn norm_and_turn(row: u32, position: u32, first_head: u32, kv_head: u32, local: u32) {
    for (var head = local / SUBGROUP; head < HEAD_ROWS; head += WORKGROUP / SUBGROUP) {
        let source = item_source(row, first_head, kv_head, head, 0u);
        var items = array<Octet, LANE_ITEMS>();
        var squares = 0.0;
        for (var j = 0u; j < LANE_ITEMS; j++) { // unrolled
            let four = local % SUBGROUP + j * SUBGROUP;
            if four < OCTETS {
                items[j] = Octet(qkv[source + four], qkv[source + OCTETS + four]);
                squares += dot(items[j].lo, items[j].lo) + dot(items[j].hi, items[j].hi);
            }
        }
        let normed = inverseSqrt(subgroupAdd(squares) / f32(D) + EPS);
        for (var j = 0u; j < LANE_ITEMS; j++) { // unrolled
            let four = local % SUBGROUP + j * SUBGROUP;
            if four < OCTETS {
                keep_item(items[j], normed, head, four, position);
            }
        }
    }
}
