//! needs: constants BITS, OFFSET

// 5- and 6-bit weights: low bits in the order of int4, then words of high bits, see
// PackFormat::Int.
// As int8 they are shifted left until their sign bit is the byte's.
// With an offset they have no sign and are shifted by one bit less.

const HIGH_BITS: u32 = BITS - 4u;
const QUADS: u32 = 8u / HIGH_BITS; // quads of weights whose high bits are in one word
const SHIFT: u32 = select(8u, 7u, OFFSET) - BITS;
const LOW_MASK: u32 = 0x0f0f0f0fu << SHIFT;
const HIGH_MASK: u32 = (0x01010101u * ((1u << HIGH_BITS) - 1u)) << (SHIFT + 4u);
// The value of one step of the int8.
const INT8_STEP: f32 = 1.0 / f32(1u << SHIFT);
