//! needs: blocks, stored_rows, weight_layout; constants GROUPS, OFFSET
// Blocks of a file to words of data and scales, two groups of 32 weights an invocation. What a
// block is, a fragment says: `group_step`, the f16 scale and above it the offset of a group, and
// `write_group`, its words of data.

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
