//! needs: reduce; constants EPS, N, STRIDE, WORKGROUP

// out[row] = x[row] / rms(x[row]) · weight

@group(0) @binding(0) var<storage, read> x: array<f32>;              // [rows, STRIDE]
@group(0) @binding(1) var<storage, read> weight: array<f32>;         // [N]
@group(0) @binding(2) var<storage, read_write> out: array<f32>;      // [rows, STRIDE]

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let base = group.x * STRIDE;
    var squares = 0.0;
    for (var i = local; i < N; i += WORKGROUP) {
        squares += x[base + i] * x[base + i];
    }
    let factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    for (var i = local; i < N; i += WORKGROUP) {
        out[base + i] = x[base + i] * factor * weight[i];
    }
}
