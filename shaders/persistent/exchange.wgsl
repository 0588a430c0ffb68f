// What workgroups of a dispatch tell one another: words that are empty until somebody has written
// them, so that to read one is to wait for it, and needs no barrier. All workgroups must run at the
// same time: no specification promises that, so waiting ends after a while, and the fault is kept
// for the host to see. Dispatches take sets of words in turns; each empties the next one's.

// As int8 four times -128, which is none of ours; as f32 -1.2e-38.
const EMPTY: u32 = 0x80808080u;

fn is_empty(words: vec4<u32>) -> bool {
    return any(words == vec4<u32>(EMPTY));
}

fn filled(values: vec4<f32>) -> vec4<u32> {
    let words = bitcast<vec4<u32>>(values);
    return select(words, vec4<u32>(), words == vec4<u32>(EMPTY));
}

fn gives_up(spins: u32) -> bool {
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
fn nothing(spins: u32) -> u32 {
    return min(spins, u32(layer.w));
}

fn empty_next_set(group: u32, local: u32) {
    for (var i = local * WORKGROUPS + group; i < SET_FOURS; i += WORKGROUPS * WORKGROUP) {
        exchange[u32(layer.z) * SET_FOURS + i] = vec4<u32>(EMPTY);
    }
}
