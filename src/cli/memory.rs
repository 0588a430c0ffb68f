//! Checks whether a model fits on its device: the plan, the free memory, and messages about both.

use std::fmt;

use indicatif::BinaryBytes;
use serde::Serialize;

use crate::backend::Sequences;
use crate::cpu::CpuBackend;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuBackend};
use crate::memory::{MemoryPlan, largest_that_fits};
use crate::model::config::{ModelConfig, shapes};
use crate::model::source::TensorSource;
use crate::model::synthetic::SyntheticSource;
use crate::model::weights::{self, LoadOptions};
use crate::quant::Quantize;

/// A model's memory on a device.
pub struct Memory<'a> {
    /// `None` for the CPU backend.
    gpu: Option<Gpu>,
    source: &'a dyn TensorSource,
    options: LoadOptions,
    /// The model is loaded to be measured, with a context that the tests choose.
    measures: bool,
    pub plan: MemoryPlan,
}

/// The part of the report of `inspect`. Sizes are in bytes.
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
    pub fn new(
        gpu: Option<Gpu>,
        source: &'a dyn TensorSource,
        options: LoadOptions,
    ) -> Result<Self> {
        let plan = plan(gpu.as_ref(), source, &options)?;
        Ok(Memory { gpu, source, options, measures: false, plan })
    }

    /// The same for `bench`, whose errors name tests that would fit.
    pub fn for_bench(
        gpu: Option<Gpu>,
        source: &'a dyn TensorSource,
        options: LoadOptions,
    ) -> Result<Self> {
        Ok(Memory { measures: true, ..Memory::new(gpu, source, options)? })
    }

    /// Errors if the model certainly does not fit. On devices that share the host's memory, it may
    /// exceed all memory: they would swap, not refuse. Or a buffer may exceed its limit. Warns if
    /// the model exceeds only the free memory, because other programs may still release some. Other
    /// devices refuse by themselves.
    pub fn check(&self) -> Result<()> {
        let host = if self.shares_host_memory() { HostMemory::read() } else { None };
        if !self.plan.fits(host.as_ref().map(|host| host.total)) {
            return Err(self.refusal());
        }
        if let Some(host) = host.filter(|host| !self.plan.fits(Some(host.free))) {
            let (needed, free) = (BinaryBytes(self.plan.total_bytes()), BinaryBytes(host.free));
            let more = if self.measures { "" } else { "; `inspect` tells more" };
            eprintln!("warning: the model takes {needed}, of memory {free} are free{more}");
        }
        Ok(())
    }

    /// The refusal if `error` reports that a device has not enough memory; otherwise `error`.
    pub fn explain(&self, error: Error) -> Error {
        match &error {
            Error::Device(reason)
                if reason.to_lowercase().contains("memory")
                    && !self.plan.fits(self.free_bytes()) =>
            {
                self.refusal()
            }
            _ => error,
        }
    }

    /// The error that the model does not fit, with the plan and what would fit, in one line.
    pub fn refusal(&self) -> Error {
        self.refusal_within(self.free_bytes())
    }

    fn refusal_within(&self, free: Option<u64>) -> Error {
        let report = match self.report_within(free) {
            Ok(report) => report,
            Err(error) => return error,
        };
        let remedy = match (report.largest_context, self.options.max_sequences) {
            (Some(context), 1) if self.measures => {
                format!("tests of up to {context} positions fit (-d with -p or -n)")
            }
            (context, count @ 2..) if self.measures => {
                match self.fewer_sequences(context, count, free) {
                    Ok(remedy) => remedy,
                    Err(error) => return error,
                }
            }
            (Some(context), _) => format!("the largest context that fits is --ctx {context}"),
            (None, _) if self.measures => self.other_shapes(report.free_bytes),
            (None, _) => "no context fits".into(),
        };
        let smaller = self.smaller_in_int8().unwrap_or_default();
        Error::Device(format!("the model does not fit: {report}; {remedy}{smaller}"))
    }

    /// What fits of a test of `count` sequences: all of them with the context `largest`, or fewer.
    fn fewer_sequences(
        &self,
        largest: Option<usize>,
        count: usize,
        free: Option<u64>,
    ) -> Result<String> {
        let plan = |max_sequences| {
            plan(self.gpu.as_ref(), self.source, &LoadOptions { max_sequences, ..self.options })
        };
        let fewer = largest_that_fits(count.min(Sequences::MOST + 1) - 1, free, plan)?;
        let positions = self.options.context_length;
        Ok(match (largest, fewer) {
            (Some(context), Some(fewer)) => format!(
                "{count} sequences of up to {context} positions fit, or {fewer} of {positions} \
                 (--parallel; -d with -n)"
            ),
            (Some(context), None) => format!(
                "{count} sequences of up to {context} positions fit (--parallel; -d with -n)"
            ),
            (None, Some(fewer)) => {
                format!("sequences of {positions} positions that fit: {fewer} (--parallel)")
            }
            (None, None) => "not even one position of so many sequences fits (--parallel)".into(),
        })
    }

    /// The saving by int8, if matrices only stay floats because the options do not quantize them.
    fn smaller_in_int8(&self) -> Option<String> {
        let options = LoadOptions { quantize: Quantize::Int8, ..self.options };
        if self.options.quantize != Quantize::Auto
            || weights::resolve(self.source, Quantize::Auto) != Quantize::None
        {
            return None;
        }
        let plan = plan(self.gpu.as_ref(), self.source, &options).ok()?;
        let is_smaller = plan.weight_bytes < self.plan.weight_bytes;
        let weights = BinaryBytes(plan.weight_bytes);
        is_smaller.then(|| format!("; with --quantize int8 the weights take {weights}"))
    }

    /// The shapes of `--synthetic` that would fit with one position.
    fn other_shapes(&self, free: Option<u64>) -> String {
        let fits = |config: ModelConfig| {
            let options = LoadOptions { context_length: 1, ..self.options };
            plan(self.gpu.as_ref(), &SyntheticSource::new(config), &options)
                .is_ok_and(|plan| plan.fits(free))
        };
        let fitting =
            shapes::NAMES.into_iter().filter(|name| ModelConfig::named(name).is_ok_and(fits));
        match fitting.collect::<Vec<_>>().as_slice() {
            [] => "no context fits".into(),
            names => format!("no context fits; of --synthetic {} would", names.join(", ")),
        }
    }

    /// The largest context that the model allows and that fits on the device.
    pub fn largest_context(&self) -> Result<Option<usize>> {
        self.largest_within(self.free_bytes())
    }

    pub fn report(&self) -> Result<MemoryReport> {
        self.report_within(self.free_bytes())
    }

    fn report_within(&self, free: Option<u64>) -> Result<MemoryReport> {
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
        let most = self.source.config().max_position_embeddings;
        let plan = |context_length| {
            plan(self.gpu.as_ref(), self.source, &LoadOptions { context_length, ..self.options })
        };
        largest_that_fits(most, free, plan)
    }

    fn shares_host_memory(&self) -> bool {
        self.gpu.as_ref().is_none_or(|gpu| gpu.facts().unified_memory)
    }

    /// Bytes that are free for the model; `None` if the operating system does not report them.
    fn free_bytes(&self) -> Option<u64> {
        let host = HostMemory::read().filter(|_| self.shares_host_memory()).map(|host| host.free);
        match &self.gpu {
            // A software adapter may promise more than the host has, and its test takes long.
            Some(gpu) if !gpu.facts().is_software() => {
                let given = pollster::block_on(gpu.free_bytes(host.unwrap_or(1 << 40)));
                Some(host.map_or(given, |host| host.min(given)))
            }
            _ => host,
        }
    }
}

fn plan(gpu: Option<&Gpu>, source: &dyn TensorSource, options: &LoadOptions) -> Result<MemoryPlan> {
    match gpu {
        Some(gpu) => GpuBackend::plan(gpu, source, options),
        None => CpuBackend::plan(source, options),
    }
}

/// Memory of the host, in bytes.
struct HostMemory {
    total: u64,
    /// Memory that programs can still get.
    free: u64,
}

impl HostMemory {
    /// `None` if the operating system does not report it.
    fn read() -> Option<HostMemory> {
        let mut system = sysinfo::System::new().ok()?;
        system.refresh_memory();
        // Free memory within a container's limit is unknown, because its use includes cached files.
        let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
        let total = system.total_memory().min(limit);
        let free = system.available_memory().min(limit);
        (free > 0).then_some(HostMemory { total, free })
    }
}

/// One line: `4.2 GiB weights + … = 6 GiB, 5 GiB of the card are free`.
impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        write!(
            f,
            "{} weights + {} KV cache of sliding and {} of full layers for {} positions + \
             {} scratch = {}",
            BinaryBytes(plan.weight_bytes),
            BinaryBytes(plan.kv_sliding_bytes),
            BinaryBytes(plan.kv_full_bytes),
            plan.context_length,
            BinaryBytes(plan.scratch_bytes),
            BinaryBytes(self.total_bytes),
        )?;
        if plan.largest_buffer > plan.buffer_limit {
            let (largest, limit) =
                (BinaryBytes(plan.largest_buffer), BinaryBytes(plan.buffer_limit));
            write!(
                f,
                ", of which one buffer takes {largest}, and a buffer of {} holds {limit}",
                self.device
            )?;
        }
        match self.free_bytes {
            Some(free) => write!(f, "; {} has {} free", self.device, BinaryBytes(free)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    #[test]
    fn a_refusal_names_int8_where_floats_were_kept() {
        let fixture = |name: &str| format!("{}/tests/{name}", env!("CARGO_MANIFEST_DIR"));
        let refusal = |path: &str, quantize| {
            let source = Checkpoint::open(fixture(path)).unwrap();
            let options = LoadOptions { quantize, ..LoadOptions::default() };
            Memory::new(None, &source, options).unwrap().refusal_within(Some(1)).to_string()
        };
        let mixed = "fixtures/import/compressed_tensors_asymmetric";
        let wanted = "; with --quantize int8 the weights take";
        let text = refusal(mixed, Quantize::Auto);
        assert!(text.contains(wanted), "{text}");
        assert!(!refusal(mixed, Quantize::Int8).contains(wanted));
        assert!(!refusal("goldens/gemma4-dense-gqa", Quantize::Auto).contains(wanted));
    }

    #[test]
    fn refusals_of_bench_tell_what_fits() {
        let refusal_of = |max_sequences, context_length, free: u64| {
            let source = SyntheticSource::new(ModelConfig::named("31b").unwrap());
            let options = LoadOptions { context_length, max_sequences, ..LoadOptions::default() };
            Memory::for_bench(None, &source, options)
                .unwrap()
                .refusal_within(Some(free))
                .to_string()
        };
        let refusal = |sequences, free| refusal_of(sequences, 100_000, free);
        // The models need tens of GB of weights and caches. There is room for a part of the
        // positions, or for the small models only, or for nothing.
        let largest = |sequences, free, wanted: &str| {
            let text = refusal(sequences, free);
            let positions = text
                .split("up to ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next())
                .unwrap()
                .to_owned();
            assert!(text.contains(wanted) && text.contains("for 100000 positions"), "{text}");
            positions.parse::<usize>().unwrap()
        };
        let (one, two) =
            (largest(1, 24 << 30, "tests of up to"), largest(2, 24 << 30, "2 sequences of up to"));
        assert!(1000 < two && two < one && one < 100_000, "{one}, {two}");
        assert!(
            refusal(2, 2 << 30)
                .ends_with("not even one position of so many sequences fits (--parallel)")
        );
        let text = refusal_of(64, 10_000, 26 << 30);
        assert!(text.ends_with(" positions fit, or 5 of 10000 (--parallel; -d with -n)"), "{text}");
        let text = refusal_of(usize::MAX, 10_000, 26 << 30);
        assert!(
            text.ends_with("; sequences of 10000 positions that fit: 5 (--parallel)"),
            "{text}"
        );
        assert!(refusal(1, 2 << 30).ends_with("no context fits; of --synthetic 270m, demo would"));
        assert!(refusal(1, 1 << 10).ends_with("no context fits"));
    }
}
