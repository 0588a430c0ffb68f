//! needs: constants PARTS, SMALLEST_PART, WINDOW
// Keys that a query at `position` sees: first, and one past the last.
fn seen_keys(position: u32) -> vec2<u32> {
    let end = position + 1u;
    return vec2<u32>(select(0u, end - min(WINDOW, end), WINDOW > 0u), end);
}

// Few keys make few parts, many keys as many as there may be.
fn part_size(keys: vec2<u32>) -> u32 {
    return max(SMALLEST_PART, (keys.y - keys.x + PARTS - 1u) / PARTS);
}

fn part_count(position: u32) -> u32 {
    let keys = seen_keys(position);
    let size = part_size(keys);
    return (keys.y - keys.x + size - 1u) / size;
}

// Keys that part `part` takes: first, and one past the last.
fn key_range(position: u32, part: u32) -> vec2<u32> {
    let keys = seen_keys(position);
    let size = part_size(keys);
    return vec2<u32>(min(keys.x + part * size, keys.y), min(keys.x + (part + 1u) * size, keys.y));
}
