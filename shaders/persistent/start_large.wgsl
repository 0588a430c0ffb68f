//! needs: activations, exchange, join_partial_outputs, key_range, matrix_product<o>, step;
//! constants O_GROUPS

// The start of a layer with large matrices. Their weights should not delay other loads.

fn start_layer(o: ptr<function, o_Held>, group: u32, local: u32) {
    join_attention(part_count(rows[0].position), group);
    o_begin(o, group, 0u, local);
    clear_next_set(group, local);
    workgroupBarrier();
    load_vector(ATTENTION, O_GROUPS, local);
}
