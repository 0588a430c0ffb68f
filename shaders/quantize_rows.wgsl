// int8 activations: each group of 32 values becomes round(x / s) with s = max|x| / 127.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;             // [rows, COLS / 4]
@group(0) @binding(1) var<storage, read_write> quants: array<vec4<u32>>;  // [rows, COLS / 16], four int8 a word
@group(0) @binding(2) var<storage, read_write> groups_out: array<vec2<f32>>; // [rows, COLS / 32]: s, s · sum of quants

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    for (var g = local; g < COLS / 32u; g += WORKGROUP) {
        let at = group.x * (COLS / 4u) + g * 8u;
        var largest = vec4<f32>();
        for (var i = 0u; i < 8u; i++) {
            largest = max(largest, abs(x[at + i]));
        }
        let scale = max(max(largest.x, largest.y), max(largest.z, largest.w)) / 127.0;
        let inverse = select(0.0, 1.0 / scale, scale > 0.0);
        var sum = vec4<i32>();
        var words = array<u32, 8>();
        for (var i = 0u; i < 8u; i++) {
            let q = clamp(vec4<i32>(round(x[at + i] * inverse)), vec4<i32>(-127), vec4<i32>(127));
            sum += q;
            words[i] = pack4xI8(q);
        }
        let word = group.x * (COLS / 16u) + g * 2u;
        quants[word] = vec4<u32>(words[0], words[1], words[2], words[3]);
        quants[word + 1u] = vec4<u32>(words[4], words[5], words[6], words[7]);
        groups_out[group.x * (COLS / 32u) + g] = vec2<f32>(scale, scale * f32(sum.x + sum.y + sum.z + sum.w));
    }
}
