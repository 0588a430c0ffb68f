//! needs: constants WORKGROUP

// Fills a buffer with one word.

@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@group(0) @binding(1) var<uniform> fill: vec4<u32>; // x: number of words, y: the word

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var i = id.x; i < fill.x; i += groups.x * WORKGROUP) {
        words[i] = fill.y;
    }
}
