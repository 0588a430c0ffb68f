// The 16 levels of ggml's IQ4 types as int8 (quant::gguf_blocks).

// The bytes of b where the mask's bits are set, otherwise those of a.
fn pick(mask: u32, a: u32, b: u32) -> u32 {
    return a ^ ((a ^ b) & mask);
}

// The level that each byte from 0 to 15 chooses. Each bit halves the table.
fn levels(chosen: u32) -> u32 {
    let ones = 0x01010101u;
    let bit0 = (chosen & ones) * 255u;
    let bit1 = ((chosen >> 1u) & ones) * 255u;
    let bit2 = ((chosen >> 2u) & ones) * 255u;
    let bit3 = ((chosen >> 3u) & ones) * 255u;
    let l0 = pick(bit0, 0x81818181u, 0x98989898u); // -127, -104
    let l2 = pick(bit0, 0xadadadadu, 0xbfbfbfbfu); // -83, -65
    let l4 = pick(bit0, 0xcfcfcfcfu, 0xddddddddu); // -49, -35
    let l6 = pick(bit0, 0xeaeaeaeau, 0xf6f6f6f6u); // -22, -10
    let l8 = pick(bit0, 0x01010101u, 0x0d0d0d0du); // 1, 13
    let l10 = pick(bit0, 0x19191919u, 0x26262626u); // 25, 38
    let l12 = pick(bit0, 0x35353535u, 0x45454545u); // 53, 69
    let l14 = pick(bit0, 0x59595959u, 0x71717171u); // 89, 113
    let low = pick(bit2, pick(bit1, l0, l2), pick(bit1, l4, l6));
    let high = pick(bit2, pick(bit1, l8, l10), pick(bit1, l12, l14));
    return pick(bit3, low, high);
}
