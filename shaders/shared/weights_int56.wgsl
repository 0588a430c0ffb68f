//! needs: int56, vec8, weight_layout; constants LOW_WORDS

// Eight integers of a row as two words of int8.
fn quants8_int8(row: u32, vec8: u32) -> vec2<u32> {
    let quad = vec8 * 2u;
    let low = data[data_word(row, vec8)];
    let high = data[data_word(row, LOW_WORDS + quad / QUADS)] >> (HIGH_BITS * (quad % QUADS));
    return vec2<u32>(
        ((low << SHIFT) & LOW_MASK) | ((high << (SHIFT + 4u)) & HIGH_MASK),
        ((low >> (4u - SHIFT)) & LOW_MASK) | ((high << (SHIFT + 4u - HIGH_BITS)) & HIGH_MASK),
    );
}

fn quants8(row: u32, vec8: u32) -> Vec8 {
    let quants = quants8_int8(row, vec8);
    return Vec8(
        vec4<f32>(unpack4xI8(quants.x)) * INT8_STEP, vec4<f32>(unpack4xI8(quants.y)) * INT8_STEP,
    );
}

const INT8_ZERO: f32 = 0.0;
