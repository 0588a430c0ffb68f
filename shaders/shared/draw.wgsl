// The values of one random choice, see sampling::Draw.
struct Draw {
    quarter_temperature: f32,
    top_p: f32,
    min_p: f32,
    point: f32, // in [0, 1)
    top_k: u32, // 1 to MOST
}
