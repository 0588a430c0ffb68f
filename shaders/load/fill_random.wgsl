//! needs: constants WORKGROUP

// Fills a buffer with random bits. The same seed gives the same bits.

@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@group(0) @binding(1) var<uniform> fill: vec4<u32>; // x: number of words, y: seed

// A permuted congruential generator as a hash (Jarzynski & Olano 2020, "Hash functions for GPU
// rendering").
fn pcg(value: u32) -> u32 {
    let state = value * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < fill.x; i += groups.x * WORKGROUP) {
        words[i] = pcg(i ^ pcg(fill.y));
    }
}
