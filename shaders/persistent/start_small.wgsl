//! needs: activations, exchange, join_partial_outputs, key_range, matrix_product<o>, q8_subgroup,
//! step; constants JOIN_STEPS, MOST_JOINED, O_GROUPS, PARTS, WORKGROUP

// The start of a layer with small matrices, whose first weights are requested at once.
// Every workgroup combines few partial outputs itself, which takes less time than an exchange.

// Combines at most MOST_JOINED partial outputs of all columns. An invocation has four columns.
fn join_few(parts: u32, local: u32) {
    for (var step = 0u; step < JOIN_STEPS; step++) { // unrolled
        let own = local + step * WORKGROUP;
        let column = min(own, O_GROUPS * 8u - 1u);
        var held = array<vec4<f32>, MOST_JOINED>();
        var stats = array<vec2<f32>, MOST_JOINED>();
        for (var i = 0u; i < MOST_JOINED; i++) { // unrolled
            stats[i] = vec2<f32>(LOWEST, 0.0);
            if i < parts {
                let part = column / VEC4S * PARTS + i;
                stats[i] = softmax_stats[part];
                held[i] = partial_outputs[part * VEC4S + column % VEC4S];
            }
        }
        var largest = LOWEST;
        for (var i = 0u; i < MOST_JOINED; i++) { // unrolled
            largest = max(largest, stats[i].x);
        }
        var joined = Joined(largest, 0.0, vec4<f32>());
        for (var i = 0u; i < MOST_JOINED; i++) { // unrolled
            let weight = exp(stats[i].x - largest);
            joined.total += weight * stats[i].y;
            joined.sum += weight * held[i];
        }
        let q8 = quantize_vec4(joined.sum / joined.total);
        let words = gather_words(q8.word);
        if own < O_GROUPS * 8u {
            keep_group(own / 8u, words, q8.group, own % 8u);
        }
    }
}

fn start_layer(o: ptr<function, o_Held>, group: u32, local: u32) {
    let position = rows[0].position;
    o_begin(o, group, 0u, local);
    let parts = part_count(position);
    if parts <= MOST_JOINED {
        join_few(parts, local);
    } else {
        join_attention(parts, group);
    }
    clear_next_set(group, local);
    workgroupBarrier();
    if parts > MOST_JOINED {
        load_vector(ATTENTION, O_GROUPS, local);
    }
}
