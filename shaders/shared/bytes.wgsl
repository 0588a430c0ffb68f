// 32 weights of a row as int8, in order.
struct Bytes {
    lo: vec4<u32>,
    hi: vec4<u32>,
}
