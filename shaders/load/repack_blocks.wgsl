//! needs: blocks, stored_rows, weight_layout; constants GROUPS, OFFSET

// Converts a file's blocks to words of data and scales. An invocation has two groups of 32 weights.
// A fragment defines the block format with two functions.
// `group_step` returns a group's f16 scale, with its offset in the high half.
// `write_group` writes its words of data.

fn repack_group(unit: Unit, group: u32) -> u32 {
    write_group(unit, group);
    let step = group_step(unit.byte, group);
    if has_infinite_half(step) {
        note_fault(unit);
    }
    return step;
}

fn repack(unit: Unit) {
    let even = 2u * unit.index;
    let first = repack_group(unit, even);
    var second = 0u;
    if even + 1u < GROUPS {
        second = repack_group(unit, even + 1u);
    }
    if OFFSET {
        scales[scale_word(unit.place, even)] = first;
        if even + 1u < GROUPS {
            scales[scale_word(unit.place, even + 1u)] = second;
        }
    } else {
        scales[scale_word(unit.place, unit.index)] = first | (second << 16u);
    }
}
