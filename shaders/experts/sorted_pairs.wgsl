//! needs: expert_tile

// Tiles of pairs that share an expert, see sort_experts.wgsl.

@group(0) @binding(4) var<storage, read> tiles: array<vec4<u32>>; // [tiles]
@group(0) @binding(5) var<storage, read> pairs: array<u32>;       // [pairs]

fn tile_of(index: u32) -> ExpertTile {
    let tile = tiles[index];
    return ExpertTile(tile.x, tile.y, tile.z);
}

fn pair_at(place: u32) -> u32 {
    return pairs[place];
}
