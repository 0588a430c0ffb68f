// A matrix of the chain, NAME: int4 in groups of 32, symmetric, in the order of weight_place.wgsl.

fn NAME_four(row: u32, group: u32) -> u32 {
    if NAME_TILED {
        return ((row / 16u) * NAME_GROUPS + group) * 16u + row % 16u;
    }
    return row * NAME_GROUPS + group;
}

fn NAME_scale_word(row: u32, group: u32) -> u32 {
    let words = (NAME_GROUPS + 1u) / 2u;
    if NAME_TILED {
        return ((row / 16u) * words + group / 2u) * 16u + row % 16u;
    }
    return row * words + group / 2u;
}

// What groups `first`, `first + by`… before `end` add to a row's product. Several are on their way at once: few invocations
// share a processor.
fn NAME_sum(row: u32, first: u32, end: u32, by: u32) -> f32 {
    var sum = 0.0;
    for (var g = first; g < end; g += by * DEPTH) {
        var quants = array<vec4<u32>, DEPTH>();
        var pairs = array<u32, DEPTH>();
        for (var i = 0u; i < DEPTH; i++) { // unrolled
            // Past the end the last group is read again, for nothing.
            let held = min(g + i * by, end - 1u);
            quants[i] = NAME_data[NAME_four(row, held)];
            pairs[i] = NAME_scales[NAME_scale_word(row, held)];
        }
        for (var i = 0u; i < DEPTH; i++) { // unrolled
            let at = g + i * by;
            let pair = unpack2x16float(pairs[i]);
            let scale = select(pair.x, pair.y, (at & 1u) == 1u);
            if at < end {
                sum += group_product(quants[i], scale, NAME_x(at));
            }
        }
    }
    return sum;
}

// Reads what NAME_sum will read first, so that it is on its way while others are waited for.
fn NAME_touch(row: u32, first: u32, by: u32) -> u32 {
    let held = min(row, NAME_ROWS - 1u);
    var seen = vec4<u32>();
    for (var i = 0u; i < DEPTH; i++) { // unrolled
        let g = min(first + i * by, NAME_GROUPS - 1u);
        seen ^= NAME_data[NAME_four(held, g)];
        seen.x ^= NAME_scales[NAME_scale_word(held, g)];
    }
    return seen.x ^ seen.y ^ seen.z ^ seen.w;
}
