//! needs: constants DATA_VEC4S, DATA_PAGES, GROUPS, LATER_DATA_PAGES, LATER_SCALE_PAGES, PAGE,
//! SCALE_PAGES, SCALE_WORDS, WORKGROUP

// Loads the beginning of a matrix into the device's last-level cache.
// It also loads the page addresses of this matrix and a later one into the device's page tables.
// It runs beside a kernel that hardly uses memory.
// The words that it reads have a use that compilers cannot remove.

@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> scales: array<u32>;
// A later matrix, of which only the page addresses are needed.
@group(0) @binding(2) var<storage, read> later_data: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> later_scales: array<u32>;
@group(0) @binding(4) var<storage, read_write> sink: array<u32>; // one word

const EACH: u32 = 4u;
// lines of 32 bytes: the scales have an eighth of the data's bytes
const SCALE_LINES: u32 = WORKGROUP / 4u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var seen = vec4<u32>();
    if group.x < GROUPS {
        let first = group.x * WORKGROUP * EACH + local;
        for (var i = 0u; i < EACH; i++) {
            seen ^= data[min(first + i * WORKGROUP, DATA_VEC4S - 1u)];
        }
        if local < SCALE_LINES {
            seen.x ^= scales[min((group.x * SCALE_LINES + local) * 8u, SCALE_WORDS - 1u)];
        }
    } else {
        for (var at = local; at < DATA_PAGES; at += WORKGROUP) {
            seen ^= data[at * (PAGE / 16u)];
        }
        for (var at = local; at < SCALE_PAGES; at += WORKGROUP) {
            seen.x ^= scales[at * (PAGE / 4u)];
        }
        for (var at = local; at < LATER_DATA_PAGES; at += WORKGROUP) {
            seen ^= later_data[at * (PAGE / 16u)];
        }
        for (var at = local; at < LATER_SCALE_PAGES; at += WORKGROUP) {
            seen.x ^= later_scales[at * (PAGE / 4u)];
        }
    }
    if (seen.x ^ seen.y ^ seen.z ^ seen.w) == 0x9e3779b9u {
        sink[0] = seen.x;
    }
}
