//! needs: constants ROW_BYTES, ROW_UNITS, INTERLEAVED16, WORKGROUP

// Rows in the format of a file, after a header of four words that says where they belong.

// the header, then [rows, ROW_BYTES]
@group(0) @binding(0) var<storage, read> stored: array<u32>;
@group(0) @binding(1) var<storage, read_write> data: array<vec4<u32>>;    // see weight_layout.wgsl
@group(0) @binding(2) var<storage, read_write> scales: array<u32>;
// [slots]: the first row that no format can hold
@group(0) @binding(3) var<storage, read_write> faults: array<atomic<u32>>;

const HEADER_BYTES = 16u;

// One of the ROW_UNITS pieces of a row. Neighbouring invocations write neighbouring places.
struct Unit {
    exists: bool,
    // The row's number in `stored`, and its first byte.
    row: u32,
    byte: u32,
    // The row in the buffers.
    place: u32,
    index: u32,
}

fn unit_of(number: u32) -> Unit {
    var row = number / ROW_UNITS;
    var index = number % ROW_UNITS;
    if INTERLEAVED16 {
        row = number / (16u * ROW_UNITS) * 16u + number % 16u;
        index = number / 16u % ROW_UNITS;
    }
    return Unit(row < stored[0], row, HEADER_BYTES + row * ROW_BYTES, stored[1] + row, index);
}

fn note_fault(unit: Unit) {
    atomicMin(&faults[stored[3]], stored[2] + unit.row);
}

// Four bytes, from any byte address on.
fn stored_word(byte: u32) -> u32 {
    let at = byte / 4u;
    let shift = 8u * (byte % 4u);
    // Two shifts, because a shift by 32 is not allowed.
    return (stored[at] >> shift) | ((stored[at + 1u] << (31u - shift)) << 1u);
}

fn stored_vec4(byte: u32) -> vec4<u32> {
    let at = byte / 4u;
    let shift = vec4<u32>(8u * (byte % 4u));
    let words = vec4<u32>(stored[at], stored[at + 1u], stored[at + 2u], stored[at + 3u]);
    return (words >> shift) | ((vec4<u32>(
        words.yzw, stored[at + 4u],
    ) << (31u - shift)) << vec4<u32>(1u));
}

// Whether one of the f16 values in a word is NaN or infinite.
fn has_infinite_half(word: u32) -> bool {
    return (word & 0x7c00u) == 0x7c00u || (word & 0x7c000000u) == 0x7c000000u;
}

// The kernel defines `repack`, which converts one unit.
@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let unit = unit_of((group.x + group.y * groups.x) * WORKGROUP + local);
    if unit.exists {
        repack(unit);
    }
}
