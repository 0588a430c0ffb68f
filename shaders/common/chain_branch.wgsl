// The end of a branch by matrix NAME: a unit is a run of 16 rows and one of SPLITS parts of their columns.

const NAME_UNITS: u32 = NAME_ROWS / 16u * SPLITS;

fn NAME_unit(unit: u32, local: u32) {
    let tile = unit / SPLITS;
    let split = unit % SPLITS;
    let first = split * NAME_GROUPS / SPLITS;
    let end = (split + 1u) * NAME_GROUPS / SPLITS;
    let part = NAME_sum(tile * 16u + local % 16u, first + local / 16u, end, PARTS_16);
    let four = four_of(unit_sum(part, 16u, local));
    if local < 16u && local % 4u == 0u {
        branch[split * FOURS + tile * 4u + local / 4u] = four;
    }
}

// See NAME_touch.
fn NAME_touch_unit(unit: u32, local: u32) -> u32 {
    let first = unit % SPLITS * NAME_GROUPS / SPLITS;
    return NAME_touch(unit / SPLITS * 16u + local % 16u, first + local / 16u, PARTS_16);
}
