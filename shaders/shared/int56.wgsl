//! needs: constants BITS, OFFSET
// 5- and 6-bit weights: low bits as int4 has them, high bits in words behind them; see
// PackFormat::Int. As int8 they are moved up until their sign is the byte's (with an offset they
// have none, and end one bit below).

const HIGH_BITS: u32 = BITS - 4u;
const QUADS: u32 = 8u / HIGH_BITS; // of weights, whose high bits a word has
const SHIFT: u32 = select(8u, 7u, OFFSET) - BITS;
const LOW_MASK: u32 = 0x0f0f0f0fu << SHIFT;
const HIGH_MASK: u32 = (0x01010101u * ((1u << HIGH_BITS) - 1u)) << (SHIFT + 4u);
// What one step of the int8 is worth.
const INT8_STEP: f32 = 1.0 / f32(1u << SHIFT);
