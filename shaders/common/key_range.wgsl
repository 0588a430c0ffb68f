const PAIRS: u32 = D / 2u;

// Keys that part `part` takes of those that a query at `position` sees: first, and one past the last. Few keys make
// few parts, many keys as many as there may be.
fn key_range(position: u32, part: u32) -> vec2<u32> {
    let end = position + 1u;
    let first = select(0u, end - min(WINDOW, end), WINDOW > 0u);
    let size = max(SMALLEST_PART, (end - first + PARTS - 1u) / PARTS);
    return vec2<u32>(min(first + part * size, end), min(first + (part + 1u) * size, end));
}
