//! needs: stored_rows, weight_layout; constants GROUPS

// Writes a group's word of fifth bits, and zeros after the last group's word.
// Bit k of byte b is the fifth bit of weight 4k + b.
fn write_fifths(unit: Unit, group: u32, word: u32) {
    data[data_vec4(unit.place, GROUPS + group / 4u)][group % 4u] = word;
    if group + 1u == GROUPS {
        for (var rest = group % 4u + 1u; rest < 4u; rest++) {
            data[data_vec4(unit.place, GROUPS + group / 4u)][rest] = 0u;
        }
    }
}
