//! needs: constants PARTS, SMALLEST_PART, WINDOW

// The first key that a query at `position` attends to, and the end of its keys.
fn seen_keys(position: u32) -> vec2<u32> {
    let end = position + 1u;
    return vec2<u32>(select(0u, end - min(WINDOW, end), WINDOW > 0u), end);
}

// Parts have at least SMALLEST_PART keys. So few keys make few parts, and many keys make PARTS
// parts.
fn part_size(keys: vec2<u32>) -> u32 {
    return max(SMALLEST_PART, (keys.y - keys.x + PARTS - 1u) / PARTS);
}

fn part_count(position: u32) -> u32 {
    let keys = seen_keys(position);
    let size = part_size(keys);
    return (keys.y - keys.x + size - 1u) / size;
}

// The first key of part `part`, and the end of its keys.
fn key_range(position: u32, part: u32) -> vec2<u32> {
    let keys = seen_keys(position);
    let size = part_size(keys);
    return vec2<u32>(min(keys.x + part * size, keys.y), min(keys.x + (part + 1u) * size, keys.y));
}
