//! The ways in which the CPU can compute.

use std::num::NonZeroUsize;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::cpu::path::Path;
use crate::cpu::simd::{self, InstructionSet};
use crate::error::{Error, Result};

/// How a [`CpuBackend`](crate::cpu::CpuBackend) computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuOptions {
    /// Compute with the reference, which keeps activations in f32. Otherwise products with integer
    /// weights round them to int8.
    pub exact: bool,
    /// The instructions of the fast path. `None`: the fastest ones of this processor.
    pub instructions: Option<Instructions>,
    /// Threads that compute. `None`: one for each core that this process may use.
    pub threads: Option<NonZeroUsize>,
}

impl CpuOptions {
    /// The reference.
    pub const EXACT: CpuOptions = CpuOptions { exact: true, instructions: None, threads: None };

    /// The threads that compute. They sleep between steps. `None`: those of the whole process.
    ///
    /// Errors: more threads than the process may use, or than the system starts.
    pub(super) fn pool(&self) -> Result<Option<ThreadPool>> {
        let most = available_threads();
        let threads = self.threads.map_or_else(cores, NonZeroUsize::get);
        if threads > most {
            return Err(Error::Input(format!("{threads} threads; this process may use {most}")));
        }
        if threads == rayon::current_num_threads() {
            return Ok(None);
        }
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map(Some).map_err(|error| Error::Device(format!("{threads} threads: {error}")))
    }

    /// Errors: the processor does not have the instructions.
    pub(super) fn path(&self) -> Result<Path> {
        let fast = |instructions: Instructions| {
            instructions.set().map(|set| Path::Fast(instructions, set))
        };
        match (self.exact, self.instructions) {
            (true, _) => Ok(Path::Exact),
            (false, Some(instructions)) => fast(instructions).ok_or_else(|| {
                Error::Input(format!("this processor has no {}", instructions.name()))
            }),
            (false, None) => {
                Ok(Instructions::ALL.into_iter().find_map(fast).unwrap_or(Path::Exact))
            }
        }
    }
}

/// The processor's threads that this process may use.
pub(crate) fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The cores that this process may use. Two threads of a core share its units, so that a second one
/// gains little.
fn cores() -> usize {
    #[cfg(not(target_arch = "wasm32"))]
    let cores = num_cpus::get_physical();
    #[cfg(target_arch = "wasm32")]
    let cores = 1;
    cores.min(available_threads()).max(1)
}

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
