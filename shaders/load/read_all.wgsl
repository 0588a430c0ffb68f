//! needs: constants BLOCK, BLOCKS, WORKGROUP

// Reads every word once in each pass. Its rate is the read ceiling for weight bandwidth.

@group(0) @binding(0) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>; // [workgroups]

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum = vec4<u32>();
    let first = group.x % BLOCKS * BLOCK;
    for (var i = local; i < BLOCK; i += WORKGROUP * 4u) {
        sum += words[first + i] ^ words[first + i + WORKGROUP];
        sum += words[first + i + 2u * WORKGROUP] ^ words[first + i + 3u * WORKGROUP];
    }
    // Never true for all invocations at once, but compilers cannot know that.
    if sum.x + sum.y + sum.z + sum.w == 0x9e3779b9u {
        sums[group.x] = sum.x;
    }
}
