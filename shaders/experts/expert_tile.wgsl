// Pairs of a row and a chosen expert that have the same expert.
struct ExpertTile {
    expert: u32,
    first: u32, // the place of the first pair
    count: u32, // 0 past the last tile
}
