// Two dims at a time, for heads of any size.

@group(0) @binding(3) var<storage, read_write> out: array<f32>; // [rows, EMIT_COLS]

fn finish(group: vec3<u32>, local: u32, first: u32, parts: u32, largest: f32) {
    for (var pair = local; pair < PAIRS; pair += WORKGROUP) {
        let values = joined(first, parts, largest, pair);
        let at = group.x * EMIT_COLS + group.y * D + pair * 2u;
        out[at] = values.x;
        out[at + 1u] = values.y;
    }
}
