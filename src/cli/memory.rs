//! Whether a model fits on its device: the plan, what is free, and how both are told.

use std::fmt;

use indicatif::BinaryBytes;
use serde::Serialize;

use crate::{
    Error, Result,
    checkpoint::{Checkpoint, TensorSource},
    cpu::CpuBackend,
    gpu::{Gpu, GpuBackend},
    memory::{MemoryPlan, largest_context},
    weights::LoadOptions,
};

/// A model's memory on a device.
pub struct Memory<'a> {
    /// `None` for the CPU backend.
    gpu: Option<Gpu>,
    checkpoint: &'a Checkpoint,
    options: LoadOptions,
    pub plan: MemoryPlan,
}

/// What `inspect` tells of it. Sizes are in bytes.
#[derive(Serialize)]
pub struct MemoryReport {
    pub device: String,
    #[serde(flatten)]
    pub plan: MemoryPlan,
    pub total_bytes: u64,
    pub free_bytes: Option<u64>,
    pub fits: bool,
    /// `None` if not even one position fits.
    pub largest_context: Option<usize>,
}

impl<'a> Memory<'a> {
    pub fn new(gpu: Option<Gpu>, checkpoint: &'a Checkpoint, options: LoadOptions) -> Result<Self> {
        let plan = plan(gpu.as_ref(), checkpoint, &options)?;
        Ok(Memory { gpu, checkpoint, options, plan })
    }

    /// Errors if the model surely does not fit: beyond all memory of devices that share the host's, which would swap
    /// rather than refuse, or beyond what one buffer may hold. Warns if it is more than is free there now, which other
    /// programs may yet give back. Other devices refuse by themselves.
    pub fn check(&self) -> Result<()> {
        let host = if self.shares_host_memory() { HostMemory::read() } else { None };
        if !self.plan.fits(host.as_ref().map(|host| host.total)) {
            return Err(self.refusal());
        }
        if let Some(host) = host.filter(|host| !self.plan.fits(Some(host.free))) {
            let (needed, free) = (BinaryBytes(self.plan.total_bytes()), BinaryBytes(host.free));
            eprintln!("warning: the model takes {needed}, of memory {free} are free; `inspect` tells more");
        }
        Ok(())
    }

    /// The refusal, if `error` is a device's for want of memory; `error` otherwise.
    pub fn explain(&self, error: Error) -> Error {
        match &error {
            Error::Device(reason) if reason.to_lowercase().contains("memory") && !self.plan.fits(self.free_bytes()) => {
                self.refusal()
            }
            _ => error,
        }
    }

    /// That the model does not fit, with the plan and what would fit, in one line.
    pub fn refusal(&self) -> Error {
        let report = match self.report() {
            Ok(report) => report,
            Err(error) => return error,
        };
        let remedy = match report.largest_context {
            Some(context) => format!("the largest context that fits is --ctx {context}"),
            None => "no context fits".into(),
        };
        Error::Device(format!("the model does not fit: {report}; {remedy}"))
    }

    /// The largest context that the model has and the device can hold.
    pub fn largest_context(&self) -> Result<Option<usize>> {
        self.largest_within(self.free_bytes())
    }

    pub fn report(&self) -> Result<MemoryReport> {
        let free = self.free_bytes();
        let device = match &self.gpu {
            Some(gpu) => gpu.facts().to_string(),
            None => "the CPU".into(),
        };
        Ok(MemoryReport {
            device,
            plan: self.plan,
            total_bytes: self.plan.total_bytes(),
            free_bytes: free,
            fits: self.plan.fits(free),
            largest_context: self.largest_within(free)?,
        })
    }

    fn largest_within(&self, free: Option<u64>) -> Result<Option<usize>> {
        let most = self.checkpoint.config().max_position_embeddings;
        let plan =
            |context_length| plan(self.gpu.as_ref(), self.checkpoint, &LoadOptions { context_length, ..self.options });
        largest_context(most, free, plan)
    }

    fn shares_host_memory(&self) -> bool {
        self.gpu.as_ref().is_none_or(|gpu| gpu.facts().unified_memory)
    }

    /// Bytes that are free for the model; `None` if the operating system does not tell.
    fn free_bytes(&self) -> Option<u64> {
        let host = HostMemory::read().filter(|_| self.shares_host_memory()).map(|host| host.free);
        match &self.gpu {
            // A software adapter promises what the host lacks, and asking it takes long.
            Some(gpu) if !gpu.facts().is_software() => {
                let given = pollster::block_on(gpu.free_bytes(host.unwrap_or(1 << 40)));
                Some(host.map_or(given, |host| host.min(given)))
            }
            _ => host,
        }
    }
}

fn plan(gpu: Option<&Gpu>, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<MemoryPlan> {
    match gpu {
        Some(gpu) => GpuBackend::plan(gpu, checkpoint, options),
        None => CpuBackend::plan(checkpoint, options),
    }
}

/// Bytes of the host's memory.
struct HostMemory {
    total: u64,
    /// What programs can still have of it.
    free: u64,
}

impl HostMemory {
    /// `None` where the operating system does not tell.
    fn read() -> Option<HostMemory> {
        let mut system = sysinfo::System::new().ok()?;
        system.refresh_memory();
        // What is free within a container's limit is not told: its use counts cached files too.
        let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
        let total = system.total_memory().min(limit);
        let free = system.available_memory().min(limit);
        (free > 0).then_some(HostMemory { total, free })
    }
}

/// In one line: `4.2 GiB weights + … = 6 GiB, 5 GiB of llvmpipe are free`.
impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        write!(
            f,
            "{} weights + {} KV cache of sliding and {} of full layers for {} positions + {} scratch = {}",
            BinaryBytes(plan.weight_bytes),
            BinaryBytes(plan.kv_sliding_bytes),
            BinaryBytes(plan.kv_full_bytes),
            plan.context_length,
            BinaryBytes(plan.scratch_bytes),
            BinaryBytes(self.total_bytes),
        )?;
        if plan.largest_buffer > plan.buffer_limit {
            let (largest, limit) = (BinaryBytes(plan.largest_buffer), BinaryBytes(plan.buffer_limit));
            write!(f, ", of which one layer's keys take {largest}, and a buffer of {} holds {limit}", self.device)?;
        }
        match self.free_bytes {
            Some(free) => write!(f, "; {} has {} free", self.device, BinaryBytes(free)),
            None => Ok(()),
        }
    }
}
