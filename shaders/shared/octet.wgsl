// Eight consecutive weights of a row.
struct Octet {
    lo: vec4<f32>,
    hi: vec4<f32>,
}
