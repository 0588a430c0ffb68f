//! The options that say which model runs where, and loading it.

use std::{cell::OnceCell, num::NonZeroUsize, path::PathBuf, str::FromStr, time::Instant};

use clap::{Args, ValueEnum, builder::PossibleValue};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    backend::Backend,
    checkpoint::Checkpoint,
    cli::{autotune, memory::Memory, mlx},
    cpu::CpuBackend,
    error::{Error, Result},
    gpu::{AdapterFacts, DeviceOptions, Gpu, GpuBackend, KernelOptions, SyntheticSource},
    hub,
    model::{
        config::ModelConfig,
        kv::CacheType,
        source::TensorSource,
        weights::{self, LoadOptions},
    },
    quant::Quantize,
};

/// The name of the built-in model.
const DEMO: &str = "demo";

/// Which model runs where.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model and device")]
pub struct ModelArgs {
    /// Checkpoint: a Hugging Face directory, a .safetensors file beside its config.json, a .gguf
    /// file, hf:OWNER/NAME[@REVISION][:FILE] in the Hugging Face cache (see `pull`), or `demo`, the
    /// small model that is part of the program [default: demo]
    #[arg(long, short, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// What computes; auto takes MLX on a Mac if it is built in, else the GPU, or the CPU with a
    /// warning where there is none but a software driver. --adapter, --kernels and --autotune ask
    /// for the GPU
    #[arg(long, value_enum, default_value_t)]
    backend: BackendKind,
    /// Adapter to use: its number in `gemma4-wgpu devices`, its PCI bus id such as 0000:3b:00.0, or
    /// its name or a part of it that no other adapter's has
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    #[arg(long, value_name = "LIST", help = KernelOptions::usage())]
    kernels: Option<KernelOptions>,
    /// Measure first which kernel options are fastest for this model here, those of --kernels
    /// aside, and keep the result for the next time
    #[arg(long)]
    autotune: bool,
    /// What `autotune` chose.
    #[arg(skip)]
    tuned: OnceCell<KernelOptions>,
    /// Whether it was said that the CPU was chosen.
    #[arg(skip)]
    told: OnceCell<()>,
    /// Multiply with activations as they are, where the device would round them to int8, or MLX to
    /// bf16
    #[arg(long, conflicts_with = "kernels")]
    exact: bool,
    /// What full-precision matrices become while loading; those that are quantized in the file keep
    /// their own format
    #[arg(long, value_enum, default_value_t)]
    quantize: Quantize,
    /// Element type of the KV cache
    #[arg(long, value_enum, default_value_t)]
    cache_type: CacheType,
    /// Positions of the context, prompt and answer together; `max` for as many as the model has and
    /// memory holds [default: what the model and the command need]
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
            _ => text
                .parse()
                .map(Context::Tokens)
                .map_err(|_| "want a number of tokens, or max".into()),
        }
    }
}

impl ValueEnum for Quantize {
    fn value_variants<'a>() -> &'a [Self] {
        &[Quantize::Auto, Quantize::Int4, Quantize::Int8, Quantize::None]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Quantize::Auto => PossibleValue::new("auto")
                .help("int4 if all matrices are full-precision, else none"),
            Quantize::Int4 => {
                PossibleValue::new("int4").help("Layers in int4, embedding and lm_head in int8")
            }
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
            Some(name)
                if !name.exists()
                    && name.components().count() == 1
                    && name.extension().is_none() =>
            {
                let name = name.display();
                Err(Error::Input(format!(
                    "--model {name}: no such path, and the only built-in model is {DEMO}"
                )))
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

    /// What the model takes with a context of so many positions, and what its device has: the GPU's
    /// through wgpu where MLX would be preferred, which makes no plan.
    pub fn memory<'a>(
        &self,
        checkpoint: &'a Checkpoint,
        context_length: usize,
    ) -> Result<Memory<'a>> {
        let gpu = match (self.backend, self.open_device(checkpoint.config())?) {
            (BackendKind::Mlx, _) => {
                return Err(Error::Input(
                    "there are memory plans for --backend wgpu and cpu, none for mlx".into(),
                ));
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
        LoadOptions {
            quantize: self.quantize,
            context_length,
            max_sequences,
            cache_type: self.cache_type,
        }
    }

    fn load_on(
        &self,
        device: Device,
        checkpoint: &Checkpoint,
        options: &LoadOptions,
    ) -> Result<Box<dyn Backend>> {
        let bytes = weights::load_bytes(checkpoint);
        if let Device::Gpu(gpu) = &device {
            self.tell_of_compiling(gpu);
        }
        let (bar, start) = (byte_bar("loading", bytes, self.quiet), Instant::now());
        let mut progress = |bytes| bar.inc(bytes);
        let backend: Box<dyn Backend> = pollster::block_on(async {
            Ok::<_, Error>(match device {
                Device::Gpu(gpu) => {
                    Box::new(GpuBackend::load(gpu, checkpoint, options, &mut progress).await?) as _
                }
                Device::Cpu => {
                    Box::new(CpuBackend::load(checkpoint, options, &mut progress).await?) as _
                }
                Device::Mlx => mlx::load(checkpoint, options, self.exact, &mut progress).await?,
            })
        })?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        log::info!(
            "loaded {bytes} bytes in {seconds:.2} s, {:.2} GB/s",
            bytes as f64 / seconds / 1e9
        );
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
            Device::Gpu(gpu) => (
                Some(read_ceiling(gpu)?),
                Some(Memory::for_bench(Some(gpu.clone()), &checkpoint, options)?),
            ),
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

    /// Errors if the tests need more positions than the model has, or if a context is asked for
    /// that they do not need.
    fn check_bench(&self, positions: usize, config: &ModelConfig) -> Result<()> {
        let max = config.max_position_embeddings;
        match self.ctx {
            Some(_) => {
                Err(Error::Input("--ctx does not apply: the tests make their own context".into()))
            }
            None if positions > max => Err(Error::Input(format!(
                "the tests need {positions} positions, the model has {max}"
            ))),
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
        // A software driver too, for the CPU backend has no such models.
        let gpu = match self.without_adapter()? {
            None => self.open_gpu(&config)?,
            Some(Device::Mlx) => {
                let made = mlx::synthetic(config, &options, self.exact, seed.into());
                return Ok((pollster::block_on(made)?, None));
            }
            Some(_) => {
                return Err(Error::Input(
                    "synthetic models need an adapter, or --backend mlx".into(),
                ));
            }
        };
        let source = SyntheticSource::new(config.clone());
        let memory = Memory::for_bench(Some(gpu.clone()), &source, options)?;
        memory.check()?;
        let ceiling = read_ceiling(&gpu)?;
        self.tell_of_compiling(&gpu);
        let made = pollster::block_on(GpuBackend::synthetic(gpu, config, &options, seed));
        Ok((Box::new(made.map_err(|error| memory.explain(error))?), Some(ceiling)))
    }

    /// Whether an option was given that only adapters follow.
    fn asks_for_gpu(&self) -> bool {
        self.adapter.is_some() || self.kernels.is_some() || self.autotune
    }

    /// The device that needs no adapter, where the options mean one.
    fn without_adapter(&self) -> Result<Option<Device>> {
        let only_for_gpu = |name| {
            Err(Error::Input(format!(
                "--adapter, --kernels and --autotune do not apply to --backend {name}"
            )))
        };
        match self.backend {
            BackendKind::Cpu if self.asks_for_gpu() => only_for_gpu("cpu"),
            BackendKind::Mlx if self.asks_for_gpu() => only_for_gpu("mlx"),
            BackendKind::Cpu => Ok(Some(Device::Cpu)),
            BackendKind::Mlx => Ok(Some(Device::Mlx)),
            BackendKind::Auto if !self.asks_for_gpu() && mlx::is_preferred() => {
                Ok(Some(Device::Mlx))
            }
            BackendKind::Auto | BackendKind::Wgpu => Ok(None),
        }
    }

    /// The device to run on. Where there is no GPU, and nothing about an adapter was asked for, it
    /// is the CPU unasked, which is told once.
    fn open_device(&self, config: &ModelConfig) -> Result<Device> {
        if let Some(device) = self.without_adapter()? {
            return Ok(device);
        }
        let opened = self.open_gpu(config);
        if self.backend == BackendKind::Auto
            && !self.asks_for_gpu()
            && let Some(reason) = reason_for_cpu(opened.as_ref().map(Gpu::facts))
        {
            self.told.get_or_init(|| eprintln!("warning: {reason}"));
            return Ok(Device::Cpu);
        }
        opened.map(Device::Gpu)
    }

    fn open_gpu(&self, config: &ModelConfig) -> Result<Gpu> {
        let mut kernels = self.kernels.unwrap_or_default();
        if self.exact {
            kernels.dp4a = Some(false);
        }
        let adapter = self.adapter.clone();
        let mut options = DeviceOptions {
            adapter,
            kernels,
            pipeline_cache: own_cache("pipelines"),
            ..Default::default()
        };
        if self.autotune {
            options.kernels = match self.tuned.get() {
                Some(tuned) => *tuned,
                None => self.tune(&options, config)?,
            };
        }
        pollster::block_on(Gpu::open(&options))
    }

    /// A software driver lets the first words wait.
    fn tell_of_compiling(&self, gpu: &Gpu) {
        let facts = gpu.facts();
        if facts.is_software() && !self.quiet {
            let name = &facts.name;
            eprintln!("note: {name} is a software driver, which first compiles each kernel");
        }
    }

    fn tune(&self, options: &DeviceOptions, config: &ModelConfig) -> Result<KernelOptions> {
        let mut report = |line: &str| {
            if !self.quiet {
                eprintln!("autotune: {line}");
            }
        };
        let directory = own_cache("autotune");
        let tuned =
            autotune::choose(options, config, self.cache_type, directory.as_deref(), &mut report)?;
        Ok(*self.tuned.get_or_init(|| tuned))
    }
}

/// Why the CPU computes unasked, where opening the most capable adapter gave `opened`: there is no
/// adapter, or none but a software driver, which has no more to offer than the CPU backend and
/// compiles kernels first. `None` where it gave a GPU, or an error to be told.
fn reason_for_cpu(opened: Result<&AdapterFacts, &Error>) -> Option<String> {
    match opened {
        Ok(facts) if facts.is_software() => {
            let name = &facts.name;
            Some(format!(
                "no adapter but {name}, a software driver: running on the CPU (--backend wgpu runs on the driver)"
            ))
        }
        Err(Error::Device(reason)) if reason.starts_with("no adapter") => Some(
            "no adapter: running on the CPU, which is slow (a GPU needs a Vulkan driver)".into(),
        ),
        _ => None,
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
    let template = format!(
        "{action} [{{bar:30}}] {{bytes}} of {{total_bytes}}, {{bytes_per_sec}}, {{eta}} left"
    );
    let style =
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    progress_bar(bytes, quiet).with_style(style.progress_chars("=> "))
}

/// A bar on stderr, invisible if `quiet` or where stderr is no terminal.
pub fn progress_bar(length: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    ProgressBar::with_draw_target(Some(length), target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::select;

    /// What is said where these are all the adapters.
    fn reason(adapters: &[AdapterFacts]) -> Option<String> {
        let chosen = select(adapters, None);
        reason_for_cpu(chosen.as_ref().map(|&place| &adapters[place]))
    }

    #[test]
    fn software_drivers_are_no_gpus() {
        let adapter = |name: &str, device_type: &str| AdapterFacts {
            name: name.into(),
            device_type: device_type.into(),
            ..AdapterFacts::example_card()
        };
        let software = [
            adapter("llvmpipe (LLVM 19.1.7, 256 bits)", "CPU"),
            adapter("SwiftShader Device (Subzero)", "CPU"),
            adapter("Microsoft Basic Render Driver", "other"),
        ];
        for driver in &software {
            let reason = reason(std::slice::from_ref(driver)).unwrap();
            assert!(
                reason.starts_with(&format!("no adapter but {}, a software driver", driver.name)),
                "{reason}"
            );
        }
        assert!(reason(&software).unwrap().contains("llvmpipe"));
        assert!(reason(&[]).unwrap().starts_with("no adapter: running on the CPU"));
        for kind in ["discrete GPU", "integrated GPU", "virtual GPU", "other"] {
            assert_eq!(reason(&[&software[..], &[adapter("a card", kind)]].concat()), None);
        }
        // What else keeps an adapter from opening is told.
        let broken = Error::Device("lost".into());
        assert_eq!(reason_for_cpu(Err(&broken)), None);
    }
}
