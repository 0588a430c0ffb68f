//! The sets of instructions that the fast path can use.

use crate::cpu::simd::{self, InstructionSet};

/// Sets of instructions for the fast path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// x86-64 with AVX-512 VNNI.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// arm64 with dot products.
    NeonDotprod,
    /// Any arm64.
    Neon,
    /// WebAssembly with vectors of 128 bits.
    Simd128,
    /// No instructions beyond those of every processor of its kind.
    Plain,
}

impl Instructions {
    /// All sets, the fastest first.
    pub const ALL: [Instructions; 6] = [
        Instructions::Avx512,
        Instructions::Avx2,
        Instructions::NeonDotprod,
        Instructions::Neon,
        Instructions::Simd128,
        Instructions::Plain,
    ];

    /// The sets of this processor, the fastest first.
    pub fn available() -> Vec<Instructions> {
        Self::ALL.into_iter().filter(|instructions| instructions.set().is_some()).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Instructions::Avx512 => "AVX-512 VNNI",
            Instructions::Avx2 => "AVX2",
            Instructions::NeonDotprod => "NEON with dot products",
            Instructions::Neon => "NEON",
            Instructions::Simd128 => "WebAssembly SIMD",
            Instructions::Plain => "plain",
        }
    }

    /// The operations with these instructions, if the processor has them.
    pub(super) fn set(self) -> Option<Box<dyn InstructionSet>> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => simd::Avx512::detect().map(|set| Box::new(set) as _),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => simd::Avx2::detect().map(|set| Box::new(set) as _),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Instructions::NeonDotprod => simd::NeonDotprod::detect().map(|set| Box::new(set) as _),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Instructions::Neon => simd::Neon::detect().map(|set| Box::new(set) as _),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Instructions::Simd128 => Some(Box::new(simd::Simd128)),
            Instructions::Plain => Some(Box::new(simd::Plain)),
            // Of other processors.
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_instructions_come_last() {
        assert_eq!(Instructions::available().last(), Some(&Instructions::Plain));
    }

    /// `tools/arm64.sh` says what the emulated processor has.
    #[test]
    fn the_fastest_instructions_are_found() {
        if let Ok(expected) = std::env::var("FASTEST_INSTRUCTIONS") {
            assert_eq!(Instructions::available()[0].name(), expected);
        }
    }
}
