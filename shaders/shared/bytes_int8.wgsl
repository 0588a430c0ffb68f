//! needs: bytes, weight_layout

// 32 int8 weights of a row.
struct Stored {
    lo: vec4<u32>,
    hi: vec4<u32>,
}

fn load_stored(row: u32, block: u32) -> Stored {
    return Stored(data[data_vec4(row, block * 2u)], data[data_vec4(row, block * 2u + 1u)]);
}

fn to_bytes(stored: Stored) -> Bytes {
    return Bytes(stored.lo, stored.hi);
}

const INT8_STEP: f32 = 1.0;

// All invocations call this before they read weights. `size` is the size of the workgroup.
fn prepare_weights(local: u32, size: u32) {}
