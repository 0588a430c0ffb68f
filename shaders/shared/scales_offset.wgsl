//! needs: weight_layout

// An f16 scale and an f16 offset for each group, in one word.
alias ScaleUnit = u32;

fn load_scale(row: u32, group: u32) -> ScaleUnit {
    return scales[scale_word(row, group)];
}

fn scale_in(unit: ScaleUnit, group: u32) -> vec2<f32> {
    return unpack2x16float(unit);
}

fn scale_of(row: u32, group: u32) -> vec2<f32> {
    return scale_in(load_scale(row, group), group);
}
