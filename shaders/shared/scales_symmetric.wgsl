//! needs: weight_layout

// One f16 scale for each group, with two groups in a word.
alias ScaleUnit = u32;

fn load_scale(row: u32, group: u32) -> ScaleUnit {
    return scales[scale_word(row, group / 2u)];
}

fn scale_in(unit: ScaleUnit, group: u32) -> vec2<f32> {
    let pair = unpack2x16float(unit);
    return vec2<f32>(select(pair.x, pair.y, (group & 1u) == 1u), 0.0);
}

fn scale_of(row: u32, group: u32) -> vec2<f32> {
    return scale_in(load_scale(row, group), group);
}
