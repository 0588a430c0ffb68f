//! needs: stored_rows, weight_layout; constants GROUPS
// Where a group's word of fifth bits belongs, and zeros behind the last one's. Bit k of its byte b
// is weight 4k + b's.
fn write_fifths(unit: Unit, group: u32, word: u32) {
    data[data_vec4(unit.place, GROUPS + group / 4u)][group % 4u] = word;
    if group + 1u == GROUPS {
        for (var rest = group % 4u + 1u; rest < 4u; rest++) {
            data[data_vec4(unit.place, GROUPS + group / 4u)][rest] = 0u;
        }
    }
}
