// The seam between two branches of the residual stream:
//   x[row] = (x[row] + rms_norm(branch[row]) · post_weight) · scalar
//   out[row] = rms_norm(x[row]) · next_weight

@group(0) @binding(0) var<storage, read_write> x: array<f32>;        // [rows, STRIDE]
@group(0) @binding(1) var<storage, read> branch: array<f32>;         // [rows, STRIDE]
@group(0) @binding(2) var<storage, read> post_weight: array<f32>;    // [N]
@group(0) @binding(3) var<storage, read> next_weight: array<f32>;    // [N]
@group(0) @binding(4) var<storage, read_write> out: array<f32>;      // [rows, STRIDE]
@group(0) @binding(5) var<uniform> layer: vec4<f32>;                 // x: scalar

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let base = group.x * STRIDE;
    var squares = 0.0;
    for (var i = local; i < N; i += WORKGROUP) {
        squares += branch[base + i] * branch[base + i];
    }
    let branch_factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    squares = 0.0;
    for (var i = local; i < N; i += WORKGROUP) {
        let sum = (x[base + i] + branch[base + i] * branch_factor * post_weight[i]) * layer.x;
        x[base + i] = sum;
        squares += sum * sum;
    }
    let factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    for (var i = local; i < N; i += WORKGROUP) {
        out[base + i] = x[base + i] * factor * next_weight[i];
    }
}
