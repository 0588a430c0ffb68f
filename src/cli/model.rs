//! The options that say which model runs where, and loading it.

use std::{cell::OnceCell, num::NonZeroUsize, path::PathBuf, str::FromStr, time::Instant};

use clap::{Args, ValueEnum, builder::PossibleValue};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{autotune, hub, memory::Memory, mlx};
use crate::{
    Error, Result,
    backend::Backend,
    checkpoint::{Checkpoint, TensorSource},
    config::ModelConfig,
    cpu::CpuBackend,
    gpu::{DeviceOptions, Gpu, GpuBackend, KernelOptions, SyntheticSource},
    quant::Quantize,
    weights::{self, CacheType, LoadOptions},
};

/// The name of the built-in model.
const DEMO: &str = "demo";

/// Which model runs where.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model and device")]
pub struct ModelArgs {
    /// Checkpoint: a Hugging Face directory, a .safetensors file beside its config.json, a .gguf file,
    /// hf:REPO or hf:REPO:FILE in the Hugging Face cache (see `pull`), or `demo`, the small model that is part of the
    /// program
    /// [default: demo]
    #[arg(long, short, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// What computes; auto takes MLX on a Mac if it is built in, else the GPU, or the CPU with a warning where there is none
    #[arg(long, value_enum, default_value_t)]
    backend: BackendKind,
    /// Adapter to use: its number in `gemma4-wgpu devices` or a part of its name
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Kernel variants to switch, such as subgroups=off,f16=off,dp4a=off,coop=off,checks=on
    #[arg(long, value_name = "LIST")]
    kernels: Option<KernelOptions>,
    /// Measure first which kernel variants are fastest for this model here, those of --kernels aside, and keep the result for
    /// the next time
    #[arg(long)]
    autotune: bool,
    /// What `autotune` chose.
    #[arg(skip)]
    tuned: OnceCell<KernelOptions>,
    /// Multiply with activations as they are, where the device would round them to int8, or MLX to bf16
    #[arg(long, conflicts_with = "kernels")]
    exact: bool,
    /// What full-precision matrices become while loading; those that are quantized in the file keep
    /// their own format
    #[arg(long, value_enum, default_value_t)]
    quantize: Quantize,
    /// Element type of the KV cache
    #[arg(long, value_enum, default_value_t)]
    cache_type: CacheType,
    /// Positions of the context, prompt and answer together; `max` for as many as the model has and memory holds
    /// [default: what the model and the command need]
    #[arg(long, value_name = "TOKENS")]
    ctx: Option<Context>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum BackendKind {
    #[default]
    Auto,
    Wgpu,
    Cpu,
    Mlx,
}

/// Where a model is loaded.
enum Device {
    Gpu(Gpu),
    Cpu,
    Mlx,
}

/// A context's length.
#[derive(Debug, Clone, Copy)]
enum Context {
    Max,
    Tokens(NonZeroUsize),
}

impl FromStr for Context {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Context::Max),
            _ => text.parse().map(Context::Tokens).map_err(|_| "want a number of tokens, or max".into()),
        }
    }
}

impl ValueEnum for Quantize {
    fn value_variants<'a>() -> &'a [Self] {
        &[Quantize::Auto, Quantize::Int4, Quantize::Int8, Quantize::None]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Quantize::Auto => PossibleValue::new("auto").help("int4 if all matrices are full-precision, else none"),
            Quantize::Int4 => PossibleValue::new("int4").help("Layers in int4, embedding and lm_head in int8"),
            Quantize::Int8 => PossibleValue::new("int8").help("All matrices in int8"),
            Quantize::None => PossibleValue::new("none").help("As stored"),
        })
    }
}

impl ValueEnum for CacheType {
    fn value_variants<'a>() -> &'a [Self] {
        &[CacheType::F16, CacheType::F32]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            CacheType::F16 => "f16",
            CacheType::F32 => "f32",
        }))
    }
}

impl ModelArgs {
    /// Opens the checkpoint; reads no weights yet.
    pub fn open(&self) -> Result<Checkpoint> {
        let model = self.model.as_deref().map(hub::resolve).transpose()?;
        match model.as_deref() {
            None => Checkpoint::demo(),
            Some(name) if name.as_os_str() == DEMO => Checkpoint::demo(),
            Some(name) if !name.exists() && name.components().count() == 1 && name.extension().is_none() => {
                let name = name.display();
                Err(Error::Input(format!("--model {name}: no such path, and the only built-in model is {DEMO}")))
            }
            Some(path) => Checkpoint::open(path),
        }
    }

    /// The context's length: `--ctx`, else `default` or what the model has, if that is less.
    pub fn context_length(&self, checkpoint: &Checkpoint, default: usize) -> Result<usize> {
        let max = checkpoint.config().max_position_embeddings;
        match self.ctx {
            None => Ok(default.min(max)),
            Some(Context::Tokens(ctx)) if ctx.get() > max => {
                Err(Error::Input(format!("--ctx {ctx} exceeds the model's {max} positions")))
            }
            Some(Context::Tokens(ctx)) => Ok(ctx.get()),
            Some(Context::Max) => {
                let memory = self.memory(checkpoint, default.min(max))?;
                memory.largest_context()?.ok_or_else(|| memory.refusal())
            }
        }
    }

    /// What the model takes with a context of so many positions, and what its device has: the GPU's through wgpu where MLX
    /// would be preferred, which makes no plan.
    pub fn memory<'a>(&self, checkpoint: &'a Checkpoint, context_length: usize) -> Result<Memory<'a>> {
        let gpu = match (self.backend, self.open_device(checkpoint.config())?) {
            (BackendKind::Mlx, _) => {
                return Err(Error::Input("there are memory plans for --backend wgpu and cpu, none for mlx".into()));
            }
            (_, Device::Gpu(gpu)) => Some(gpu),
            (_, Device::Cpu) => None,
            (_, Device::Mlx) => Some(self.open_gpu(checkpoint.config())?),
        };
        Memory::new(gpu, checkpoint, self.load_options(context_length, 1))
    }

    /// What full-precision weights become.
    pub fn quantize(&self) -> Quantize {
        self.quantize
    }

    /// Loads the model onto its device, with a progress bar if stderr is a terminal.
    pub fn load(&self, checkpoint: &Checkpoint, context_length: usize) -> Result<Box<dyn Backend>> {
        let options = self.load_options(context_length, 1);
        let gpu = match self.open_device(checkpoint.config())? {
            Device::Mlx => return self.load_on(Device::Mlx, checkpoint, &options),
            Device::Gpu(gpu) => Some(gpu),
            Device::Cpu => None,
        };
        let memory = Memory::new(gpu.clone(), checkpoint, options)?;
        memory.check()?;
        let device = gpu.map_or(Device::Cpu, Device::Gpu);
        self.load_on(device, checkpoint, &options).map_err(|error| memory.explain(error))
    }

    fn load_options(&self, context_length: usize, max_sequences: usize) -> LoadOptions {
        LoadOptions { quantize: self.quantize, context_length, max_sequences, cache_type: self.cache_type }
    }

    fn load_on(&self, device: Device, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Box<dyn Backend>> {
        let bytes = weights::load_bytes(checkpoint);
        let (bar, start) = (byte_bar("loading", bytes, self.quiet), Instant::now());
        let mut progress = |bytes| bar.inc(bytes);
        let backend: Box<dyn Backend> = pollster::block_on(async {
            Ok::<_, Error>(match device {
                Device::Gpu(gpu) => Box::new(GpuBackend::load(gpu, checkpoint, options, &mut progress).await?) as _,
                Device::Cpu => Box::new(CpuBackend::load(checkpoint, options, &mut progress).await?) as _,
                Device::Mlx => mlx::load(checkpoint, options, self.exact, &mut progress).await?,
            })
        })?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        log::info!("loaded {bytes} bytes in {seconds:.2} s, {:.2} GB/s", bytes as f64 / seconds / 1e9);
        Ok(backend)
    }

    /// Loads a checkpoint to measure it, with the device's read ceiling in GB/s.
    pub fn load_for_bench(
        &self,
        positions: usize,
        sequences: usize,
    ) -> Result<(String, Box<dyn Backend>, Option<f64>)> {
        let checkpoint = self.open()?;
        self.check_bench(positions, checkpoint.config())?;
        let device = self.open_device(checkpoint.config())?;
        let options = self.load_options(positions, sequences);
        let (ceiling, memory) = match &device {
            Device::Mlx => (None, None),
            Device::Gpu(gpu) => {
                (Some(read_ceiling(gpu)?), Some(Memory::for_bench(Some(gpu.clone()), &checkpoint, options)?))
            }
            Device::Cpu => (None, Some(Memory::for_bench(None, &checkpoint, options)?)),
        };
        memory.as_ref().map_or(Ok(()), Memory::check)?;
        let loaded = self.load_on(device, &checkpoint, &options);
        let backend = loaded.map_err(|error| match &memory {
            Some(memory) => memory.explain(error),
            None => error,
        })?;
        Ok((checkpoint.description().to_owned(), backend, ceiling))
    }

    /// Errors if the tests need more positions than the model has, or if a context is asked for that they do not need.
    fn check_bench(&self, positions: usize, config: &ModelConfig) -> Result<()> {
        let max = config.max_position_embeddings;
        match self.ctx {
            Some(_) => Err(Error::Input("--ctx does not apply: the tests make their own context".into())),
            None if positions > max => {
                Err(Error::Input(format!("the tests need {positions} positions, the model has {max}")))
            }
            None => Ok(()),
        }
    }

    /// Makes a model of random weights on the device, with the device's read ceiling in GB/s.
    pub fn load_synthetic(
        &self,
        name: &str,
        positions: usize,
        sequences: usize,
        seed: u32,
    ) -> Result<(Box<dyn Backend>, Option<f64>)> {
        let config = ModelConfig::named(name)?;
        self.check_bench(positions, &config)?;
        let options = self.load_options(positions, sequences);
        let gpu = match self.open_device(&config)? {
            Device::Gpu(gpu) => gpu,
            Device::Mlx => {
                let made = mlx::synthetic(config, &options, self.exact, seed.into());
                return Ok((pollster::block_on(made)?, None));
            }
            Device::Cpu => return Err(Error::Input("synthetic models need an adapter, or --backend mlx".into())),
        };
        let source = SyntheticSource::new(config.clone());
        let memory = Memory::for_bench(Some(gpu.clone()), &source, options)?;
        memory.check()?;
        let ceiling = read_ceiling(&gpu)?;
        let made = pollster::block_on(GpuBackend::synthetic(gpu, config, &options, seed));
        Ok((Box::new(made.map_err(|error| memory.explain(error))?), Some(ceiling)))
    }

    /// The device to run on. Only a missing adapter, and only where nothing about the adapter was asked for,
    /// leads to the CPU without asking.
    fn open_device(&self, config: &ModelConfig) -> Result<Device> {
        let asks_for_gpu = self.adapter.is_some() || self.kernels.is_some() || self.autotune;
        let only_for_gpu =
            |name| Err(Error::Input(format!("--adapter, --kernels and --autotune do not apply to --backend {name}")));
        match self.backend {
            BackendKind::Cpu if asks_for_gpu => return only_for_gpu("cpu"),
            BackendKind::Mlx if asks_for_gpu => return only_for_gpu("mlx"),
            BackendKind::Cpu => return Ok(Device::Cpu),
            BackendKind::Mlx => return Ok(Device::Mlx),
            BackendKind::Auto if !asks_for_gpu && mlx::is_preferred() => return Ok(Device::Mlx),
            BackendKind::Auto | BackendKind::Wgpu => {}
        }
        match self.open_gpu(config) {
            Err(Error::Device(reason))
                if self.backend == BackendKind::Auto && !asks_for_gpu && reason.starts_with("no adapter") =>
            {
                eprintln!("warning: {reason}; running on the CPU backend, which is slow");
                Ok(Device::Cpu)
            }
            gpu => gpu.map(Device::Gpu),
        }
    }

    fn open_gpu(&self, config: &ModelConfig) -> Result<Gpu> {
        let mut kernels = self.kernels.unwrap_or_default();
        if self.exact {
            kernels.dp4a = Some(false);
        }
        let adapter = self.adapter.clone();
        let mut options =
            DeviceOptions { adapter, kernels, pipeline_cache: own_cache("pipelines"), ..Default::default() };
        if self.autotune {
            options.kernels = match self.tuned.get() {
                Some(tuned) => *tuned,
                None => self.tune(&options, config)?,
            };
        }
        pollster::block_on(Gpu::open(&options))
    }

    fn tune(&self, options: &DeviceOptions, config: &ModelConfig) -> Result<KernelOptions> {
        let mut report = |line: &str| {
            if !self.quiet {
                eprintln!("autotune: {line}");
            }
        };
        let directory = own_cache("autotune");
        let tuned = autotune::choose(options, config, self.cache_type, directory.as_deref(), &mut report)?;
        Ok(*self.tuned.get_or_init(|| tuned))
    }
}

/// A directory for what one start keeps for the next.
pub fn own_cache(name: &str) -> Option<PathBuf> {
    dirs::cache_dir().map(|cache| cache.join("gemma4-wgpu").join(name))
}

fn read_ceiling(gpu: &Gpu) -> Result<f64> {
    Ok(gpu.read_bandwidth()? / 1e9)
}

/// A bar of bytes with their rate.
pub fn byte_bar(action: &str, bytes: u64, quiet: bool) -> ProgressBar {
    let template = format!("{action} [{{bar:30}}] {{bytes}} of {{total_bytes}}, {{bytes_per_sec}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    progress_bar(bytes, quiet).with_style(style.progress_chars("=> "))
}

/// A bar on stderr, invisible if `quiet` or where stderr is no terminal.
pub fn progress_bar(length: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    ProgressBar::with_draw_target(Some(length), target)
}
