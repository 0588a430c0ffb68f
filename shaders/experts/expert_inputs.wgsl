//! needs: reduce; constants EPS, INPUT_SCALE, N, STRIDE, WORKGROUP

// The inputs of experts and router, which share the norm of the residual stream:
//   experts[row] = rms_norm(x[row]) · pre_norm
//   routed[row] = rms_norm(x[row]) · router_scale · INPUT_SCALE
// Columns past N are zero, in the weights too.

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;                  // [rows, STRIDE / 4]
@group(0) @binding(1) var<storage, read> pre_norm: array<vec4<f32>>;           // [N / 4]
@group(0) @binding(2) var<storage, read> router_scale: array<vec4<f32>>;       // [N / 4]
@group(0) @binding(3) var<storage, read_write> experts: array<vec4<f32>>;      // [rows, STRIDE / 4]
@group(0) @binding(4) var<storage, read_write> routed: array<vec4<f32>>;       // [rows, STRIDE / 4]

const VEC4S: u32 = (N + 3u) / 4u;

fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32) {
    let base = group.x * (STRIDE / 4u);
    var squares = 0.0;
    for (var i = local; i < VEC4S; i += WORKGROUP) {
        squares += dot(x[base + i], x[base + i]);
    }
    let factor = inverseSqrt(group_sum(squares, local) / f32(N) + EPS);
    for (var i = local; i < STRIDE / 4u; i += WORKGROUP) {
        var of_experts = vec4<f32>();
        var of_router = vec4<f32>();
        if i < VEC4S {
            let normed = x[base + i] * factor;
            of_experts = normed * pre_norm[i];
            of_router = normed * router_scale[i] * INPUT_SCALE;
        }
        experts[base + i] = of_experts;
        routed[base + i] = of_router;
    }
}
