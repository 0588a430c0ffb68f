//! The sets of instructions that the fast path can use.

use crate::cpu::simd::{self, InstructionSet};

/// Sets of instructions for the fast path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// x86-64 with AVX-512 VNNI.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// No instructions beyond those of every processor of its kind.
    Plain,
}

impl Instructions {
    /// All sets, the fastest first.
    pub const ALL: [Instructions; 3] =
        [Instructions::Avx512, Instructions::Avx2, Instructions::Plain];

    /// The sets of this processor, the fastest first.
    pub fn available() -> Vec<Instructions> {
        Self::ALL.into_iter().filter(|instructions| instructions.set().is_some()).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            Instructions::Avx512 => "AVX-512 VNNI",
            Instructions::Avx2 => "AVX2",
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
            Instructions::Plain => Some(Box::new(simd::Plain)),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }
}
