//! The ways in which the CPU can compute.

use std::num::NonZeroUsize;

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::cpu::instructions::Instructions;
use crate::cpu::path::Path;
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
