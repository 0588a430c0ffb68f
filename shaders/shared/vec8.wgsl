// Eight consecutive weights of a row.
struct Vec8 {
    lo: vec4<f32>,
    hi: vec4<f32>,
}
