//! needs: constants MOST_SPINS, SET_VEC4S, WORKGROUP, WORKGROUPS
// What workgroups of a dispatch tell one another: words that hold a sentinel until one is written.
// To read a word is to wait for it, and needs no barrier. All workgroups must run at the same time.
// No specification promises that: waiting ends after a while, and the fault is stored for the host.
// Dispatches take sets of words by rotation; each clears the next one's.

// As int8 four times -128, which is none of ours; as f32 -1.2e-38.
const SENTINEL: u32 = 0x80808080u;

fn is_missing(words: vec4<u32>) -> bool {
    return any(words == vec4<u32>(SENTINEL));
}

// Values as words that are not the sentinel.
fn present(values: vec4<f32>) -> vec4<u32> {
    let words = bitcast<vec4<u32>>(values);
    return select(words, vec4<u32>(), words == vec4<u32>(SENTINEL));
}

fn timed_out(spins: u32) -> bool {
    // Seldom, for this waits for memory too.
    if spins % 64u == 0u && atomicLoad(&fault) != 0u {
        return true;
    }
    if spins > MOST_SPINS {
        atomicStore(&fault, 1u);
        return true;
    }
    return false;
}

// Always 0, which no compiler knows: a load from an address that may change is not moved out of a
// loop.
fn opaque_zero(spins: u32) -> u32 {
    return min(spins, u32(layer.w));
}

// Four words as they were seen, or as they are once they are there.
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
