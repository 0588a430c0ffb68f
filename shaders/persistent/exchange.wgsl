//! needs: constants MOST_SPINS, SET_VEC4S, WORKGROUP, WORKGROUPS

// How workgroups of a dispatch exchange results: a word holds a sentinel until it is written.
// A reader repeats its load until the sentinel is gone, so it needs no barrier.
// All workgroups must run at the same time, which no specification guarantees.
// So the wait ends after MOST_SPINS loads, and the kernel stores a fault for the host.
//
// Dispatches use the sets of words in rotation. Each clears the set of the next dispatch.

// As int8 four times -128, which rounding never produces. As f32 -1.2e-38.
const SENTINEL: u32 = 0x80808080u;

fn is_missing(words: vec4<u32>) -> bool {
    return any(words == vec4<u32>(SENTINEL));
}

// Values as words that differ from the sentinel.
fn present(values: vec4<f32>) -> vec4<u32> {
    let words = bitcast<vec4<u32>>(values);
    return select(words, vec4<u32>(), words == vec4<u32>(SENTINEL));
}

fn timed_out(spins: u32) -> bool {
    // Only every 64th time, because this load waits for memory too.
    if spins % 64u == 0u && atomicLoad(&fault) != 0u {
        return true;
    }
    if spins > MOST_SPINS {
        atomicStore(&fault, 1u);
        return true;
    }
    return false;
}

// Always 0, but compilers cannot know that.
// They do not move a load out of a loop where its address may change.
fn opaque_zero(spins: u32) -> u32 {
    return min(spins, u32(layer.w));
}

// Four words: `seen` if all were written, otherwise reloaded until all are written.
fn spin_load(seen: vec4<u32>, at: u32) -> vec4<u32> {
    var words = seen;
    var spins = 0u;
    while is_missing(words) {
        spins++;
        if timed_out(spins) {
            break;
        }
        words = exchange[at + opaque_zero(spins)];
    }
    return words;
}

fn own_set() -> u32 {
    return u32(layer.y) * SET_VEC4S;
}

fn clear_next_set(group: u32, local: u32) {
    for (var i = local * WORKGROUPS + group; i < SET_VEC4S; i += WORKGROUPS * WORKGROUP) {
        exchange[u32(layer.z) * SET_VEC4S + i] = vec4<u32>(SENTINEL);
    }
}
