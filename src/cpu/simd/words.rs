//! Sixteen words in registers.

use crate::cpu::simd::tile::Lanes;

/// A word for each feature of a tile, as integer or as f32.
///
/// The methods are inlined into functions that are compiled with the instructions. Elsewhere they
/// must not be called.
pub trait Words: Copy {
    fn load(from: &Lanes<u32>) -> Self;

    fn store(self, to: &mut Lanes<u32>);

    /// Stores lanes of f32.
    #[inline(always)]
    fn store_f32(self, to: &mut Lanes<f32>) {
        self.store(bytemuck::cast_mut(to));
    }

    fn splat(word: u32) -> Self;

    fn and(self, other: Self) -> Self;

    fn or(self, other: Self) -> Self;

    fn xor(self, other: Self) -> Self;

    /// Shifts to the left by `bits`.
    fn shl(self, bits: u32) -> Self;

    /// Shifts to the right by `bits`.
    fn shr(self, bits: u32) -> Self;

    /// The product of lanes of f32.
    fn mul_f32(self, other: Self) -> Self;

    /// Integers below 2³¹ as f32.
    fn to_f32(self) -> Self;
}

/// Words without instructions of their own.
impl Words for Lanes<u32> {
    #[inline(always)]
    fn load(from: &Lanes<u32>) -> Self {
        *from
    }

    #[inline(always)]
    fn store(self, to: &mut Lanes<u32>) {
        *to = self;
    }

    #[inline(always)]
    fn splat(word: u32) -> Self {
        [word; 16]
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        both(self, other, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        both(self, other, |a, b| a | b)
    }

    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        both(self, other, |a, b| a ^ b)
    }

    #[inline(always)]
    fn shl(self, bits: u32) -> Self {
        both(self, self, |a, _| a << bits)
    }

    #[inline(always)]
    fn shr(self, bits: u32) -> Self {
        both(self, self, |a, _| a >> bits)
    }

    #[inline(always)]
    fn mul_f32(self, other: Self) -> Self {
        both(self, other, |a, b| (f32::from_bits(a) * f32::from_bits(b)).to_bits())
    }

    #[inline(always)]
    fn to_f32(self) -> Self {
        both(self, self, |a, _| (a as i32 as f32).to_bits())
    }
}

#[inline(always)]
fn both(a: Lanes<u32>, b: Lanes<u32>, f: impl Fn(u32, u32) -> u32) -> Lanes<u32> {
    let mut out = a;
    for (out, b) in out.iter_mut().zip(b) {
        *out = f(*out, b);
    }
    out
}

/// Registers of integers as [`Words`], with the functions of `std::arch` for one register. The last
/// two are the product of f32, and integers as f32.
#[cfg(target_arch = "x86_64")]
macro_rules! register {
    (
        $name:ident([$register:ty; $count:literal]), $load:path, $store:path, $splat:path,
        $and:path, $or:path, $xor:path, $shl:path, $shr:path, $mul:expr, $to_f32:expr
    ) => {
        #[derive(Clone, Copy)]
        pub(in crate::cpu) struct $name([$register; $count]);

        impl $name {
            #[inline(always)]
            fn both(self, other: Self, f: impl Fn($register, $register) -> $register) -> Self {
                let mut out = self;
                for i in 0..$count {
                    out.0[i] = f(self.0[i], other.0[i]);
                }
                out
            }
        }

        // SAFETY of all methods: as the trait says, only functions that are compiled with the
        // instructions call them. Loads and stores need no alignment.
        #[allow(clippy::undocumented_unsafe_blocks)]
        impl $crate::cpu::simd::words::Words for $name {
            #[inline(always)]
            fn load(from: &Lanes<u32>) -> Self {
                let registers: &[[u32; 16 / $count]; $count] = bytemuck::cast_ref(from);
                let mut out = unsafe { [$splat(0); $count] };
                for i in 0..$count {
                    out[i] = unsafe { $load(registers[i].as_ptr().cast()) };
                }
                $name(out)
            }

            #[inline(always)]
            fn store(self, to: &mut Lanes<u32>) {
                let registers: &mut [[u32; 16 / $count]; $count] = bytemuck::cast_mut(to);
                for i in 0..$count {
                    unsafe { $store(registers[i].as_mut_ptr().cast(), self.0[i]) };
                }
            }

            #[inline(always)]
            fn splat(word: u32) -> Self {
                $name([unsafe { $splat(word as i32) }; $count])
            }

            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self.both(other, |a, b| unsafe { $and(a, b) })
            }

            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self.both(other, |a, b| unsafe { $or(a, b) })
            }

            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self.both(other, |a, b| unsafe { $xor(a, b) })
            }

            #[inline(always)]
            fn shl(self, bits: u32) -> Self {
                self.both(Self::splat(bits), |a, bits| unsafe { $shl(a, bits) })
            }

            #[inline(always)]
            fn shr(self, bits: u32) -> Self {
                self.both(Self::splat(bits), |a, bits| unsafe { $shr(a, bits) })
            }

            #[inline(always)]
            fn mul_f32(self, other: Self) -> Self {
                self.both(other, |a, b| ($mul)(a, b))
            }

            #[inline(always)]
            fn to_f32(self) -> Self {
                self.both(self, |a, _| ($to_f32)(a))
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
pub(in crate::cpu) use register;
