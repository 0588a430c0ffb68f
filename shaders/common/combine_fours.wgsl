// Four dims at a time, for heads of a multiple of 32.

fn finish(group: vec3<u32>, local: u32, first: u32, parts: u32, largest: f32) {
    for (var at = 0u; at < D / 4u; at += WORKGROUP) {
        let four = at + local;
        let inside = four < D / 4u;
        var values = vec4<f32>();
        if inside {
            values = vec4<f32>(
                joined(first, parts, largest, 2u * four),
                joined(first, parts, largest, 2u * four + 1u),
            );
        }
        // Past the head's end lies the next head, which is not ours to write.
        emit(group.x, select(EMIT_COLS, group.y * (D / 4u) + four, inside), values, local);
    }
}
