// Of gelu_mul: a layer's columns of all layers' vectors in up's place.

@group(0) @binding(1) var<storage, read> vectors: array<f32>; // [rows, VECTORS_STRIDE]
@group(0) @binding(2) var<uniform> place: vec4<u32>;          // x: the layer's first column

fn up_of(row: u32, col: u32) -> f32 {
    return vectors[row * VECTORS_STRIDE + place.x + col];
}
