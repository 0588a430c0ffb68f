// out[row, i] = gelu(gate[row, i]) · up[row, i], with the tanh approximation of GELU (Hendrycks & Gimpel 2016).

@group(0) @binding(0) var<storage, read> gate_up: array<f32>;    // [rows, IN_STRIDE]: gate [N], up [N]
@group(0) @binding(1) var<storage, read_write> out: array<f32>;  // [rows, OUT_STRIDE]

fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.7978845608028654 * (x + 0.044715 * x * x * x);
    // tanh overflows on some drivers far from zero, where it is 1 anyway.
    return 0.5 * x * (1.0 + tanh(clamp(inner, -15.0, 15.0)));
}

@compute @workgroup_size(1, WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.y >= N {
        return;
    }
    let base = id.x * IN_STRIDE;
    out[id.x * OUT_STRIDE + id.y] = gelu_tanh(gate_up[base + id.y]) * gate_up[base + N + id.y];
}
