//! The options for the model and its device, and loading it.

mod bench;
mod values;

use std::cell::OnceCell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;

use self::values::Context;
use crate::api::ModelOptions;
use crate::api::device::Device;
use crate::api::open::{DEMO, open_checkpoint};
use crate::backend::{Backend, BackendKind};
use crate::checkpoint::Checkpoint;
use crate::cli::{memory::Memory, progress::byte_bar};
use crate::cpu::Instructions;
use crate::error::{Error, Result};
use crate::gpu::{DeviceOptions, Gpu, KernelOptions};
use crate::model::config::ModelConfig;
use crate::model::kv::CacheType;
use crate::model::source::TensorSource;
use crate::model::weights::{self, LoadOptions};
use crate::quant::Quantize;
use crate::tune;

/// The model and its device.
#[derive(Args, Clone)]
#[command(next_help_heading = "Model and device")]
pub struct ModelArgs {
    /// Checkpoint: a Hugging Face directory, a .safetensors file beside its config.json, or a .gguf
    /// file. Or hf:OWNER/NAME[@REVISION][:FILE] in the Hugging Face cache (see `pull`). Or `demo`,
    /// the small model in this program [default: demo]
    #[arg(long, short, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// Backend that computes. auto takes MLX on a Mac if it is built in, else the GPU. If there is
    /// only a software driver, it takes the CPU with a warning. --adapter, --kernels and --autotune
    /// demand the GPU
    #[arg(long, value_enum, default_value_t)]
    backend: BackendKind,
    /// Adapter to use: its number in `gemma4-wgpu devices`, or its PCI bus id such as 0000:3b:00.0.
    /// Or its name, or a part that no other adapter's name has
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    #[arg(long, value_name = "LIST", help = KernelOptions::usage())]
    kernels: Option<KernelOptions>,
    /// First measure which kernel options are fastest for this model on this device. Options set by
    /// --kernels stay. The result is kept for the next time
    #[arg(long)]
    autotune: bool,
    /// The options that `tune` chose.
    #[arg(skip)]
    tuned: OnceCell<KernelOptions>,
    /// The model's device.
    #[arg(skip)]
    device: OnceCell<Device>,
    /// Keep activations exact in products. Otherwise the device may round them to int8, or MLX to
    /// bf16
    #[arg(long, conflicts_with = "kernels")]
    exact: bool,
    /// Threads of the CPU backend [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Instructions of the CPU backend [default: the fastest of this processor]
    #[arg(long, value_enum, value_name = "SET", conflicts_with = "exact")]
    instructions: Option<Instructions>,
    /// Format that full-precision matrices become while loading. Matrices that are quantized in the
    /// file keep their own format
    #[arg(long, value_enum, default_value_t)]
    quantize: Quantize,
    /// Element type of the KV cache
    #[arg(long, value_enum, default_value_t)]
    cache_type: CacheType,
    /// Positions of the context, for prompt and answer together. `max` is as many as fit [default:
    /// as many as the model and the command need]
    #[arg(long, value_name = "TOKENS")]
    ctx: Option<Context>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

impl ModelArgs {
    /// Opens the checkpoint; reads no weights yet.
    pub fn open(&self) -> Result<Checkpoint> {
        open_checkpoint(self.model.as_deref().unwrap_or(Path::new(DEMO)))
    }

    /// The context's length: `--ctx`, else `default`, or the model's maximum if that is less.
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

    /// The memory that the model takes with a context of `context_length` positions, and the memory
    /// of its device. MLX makes no plan. Where it would be preferred, the plan is that of the GPU
    /// through wgpu.
    pub fn memory<'a>(
        &self,
        checkpoint: &'a Checkpoint,
        context_length: usize,
    ) -> Result<Memory<'a>> {
        if self.backend == BackendKind::Mlx {
            return Err(Error::Input(
                "there are memory plans for --backend wgpu and cpu, none for mlx".into(),
            ));
        }
        let gpu = match self.open_device(checkpoint.config(), 1)? {
            Device::Gpu(gpu) => Some(gpu),
            Device::Cpu => None,
            Device::Mlx => Some(self.open_gpu(checkpoint.config(), 1)?),
        };
        Memory::new(gpu, checkpoint, self.options()?.load_options(context_length, 1))
    }

    /// The format of full-precision weights.
    pub fn quantize(&self) -> Quantize {
        self.quantize
    }

    /// Loads the model onto its device, with a progress bar if stderr is a terminal.
    pub fn load(&self, checkpoint: &Checkpoint, context_length: usize) -> Result<Box<dyn Backend>> {
        self.load_for(checkpoint, context_length, 1)
    }

    /// The same for `sequences` sequences at once, each with a context of this length.
    pub fn load_for(
        &self,
        checkpoint: &Checkpoint,
        context_length: usize,
        sequences: usize,
    ) -> Result<Box<dyn Backend>> {
        let load = self.options()?.load_options(context_length, sequences);
        let device = self.open_device(checkpoint.config(), sequences)?;
        let gpu = match &device {
            Device::Mlx => return self.load_on(device, checkpoint, &load),
            Device::Gpu(gpu) => Some(gpu.clone()),
            Device::Cpu => None,
        };
        let memory = Memory::new(gpu, checkpoint, load)?;
        memory.check()?;
        self.load_on(device, checkpoint, &load).map_err(|error| memory.explain(error))
    }

    fn load_on(
        &self,
        device: Device,
        checkpoint: &Checkpoint,
        load: &LoadOptions,
    ) -> Result<Box<dyn Backend>> {
        let bytes = weights::load_bytes(checkpoint);
        if let Device::Gpu(gpu) = &device {
            self.note_compiling(gpu);
        }
        let (bar, start) = (byte_bar("loading", bytes, self.quiet), Instant::now());
        let mut progress = |bytes| bar.inc(bytes);
        let options = self.options()?;
        let backend = pollster::block_on(options.load(device, checkpoint, load, &mut progress))?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        log::info!(
            "loaded {bytes} bytes in {seconds:.2} s, {:.2} GB/s",
            bytes as f64 / seconds / 1e9
        );
        Ok(backend)
    }

    /// The library's options. An option that only adapters have demands the GPU.
    ///
    /// Errors: such an option with another backend, or threads without the CPU.
    fn options(&self) -> Result<ModelOptions> {
        let asks_for_gpu = self.adapter.is_some() || self.kernels.is_some() || self.autotune;
        let backend = match self.backend {
            kind @ (BackendKind::Cpu | BackendKind::Mlx) if asks_for_gpu => {
                let name = if kind == BackendKind::Cpu { "cpu" } else { "mlx" };
                return Err(Error::Input(format!(
                    "--adapter, --kernels and --autotune do not apply to --backend {name}"
                )));
            }
            BackendKind::Auto if asks_for_gpu => BackendKind::Wgpu,
            kind => kind,
        };
        if self.threads.is_some() && matches!(backend, BackendKind::Wgpu | BackendKind::Mlx) {
            return Err(Error::Input("--threads applies to --backend cpu".into()));
        }
        if self.instructions.is_some() && backend != BackendKind::Cpu {
            return Err(Error::Input("--instructions applies to --backend cpu".into()));
        }
        Ok(ModelOptions {
            backend,
            device: DeviceOptions {
                adapter: self.adapter.clone(),
                kernels: self.kernels.unwrap_or_default(),
                pipeline_cache: own_cache("pipelines"),
                ..DeviceOptions::default()
            },
            exact: self.exact,
            threads: self.threads,
            instructions: self.instructions,
            quantize: self.quantize,
            cache_type: self.cache_type,
            context_length: None,
        })
    }

    /// The device to run up to `sequences` sequences on, opened once.
    fn open_device(&self, config: &ModelConfig, sequences: usize) -> Result<Device> {
        if let Some(device) = self.device.get() {
            return Ok(device.clone());
        }
        let device = self.tuned_options(config, sequences)?.open_device()?;
        Ok(self.device.get_or_init(|| device).clone())
    }

    fn open_gpu(&self, config: &ModelConfig, sequences: usize) -> Result<Gpu> {
        self.tuned_options(config, sequences)?.open_gpu()
    }

    /// The options, with the kernels that `--autotune` chose if it is set.
    fn tuned_options(&self, config: &ModelConfig, sequences: usize) -> Result<ModelOptions> {
        let mut options = self.options()?;
        if self.autotune {
            options.device.kernels = match self.tuned.get() {
                Some(tuned) => *tuned,
                None => self.tune(&options.device_options(), config, sequences)?,
            };
        }
        Ok(options)
    }

    /// Notes that a software driver delays the first words.
    fn note_compiling(&self, gpu: &Gpu) {
        let facts = gpu.facts();
        if facts.is_software() && !self.quiet {
            let name = &facts.name;
            eprintln!("note: {name} is a software driver, which first compiles each kernel");
        }
    }

    fn tune(
        &self,
        options: &DeviceOptions,
        config: &ModelConfig,
        sequences: usize,
    ) -> Result<KernelOptions> {
        let mut report = |line: &str| {
            if !self.quiet {
                eprintln!("autotune: {line}");
            }
        };
        let (cache, directory) = (self.cache_type, own_cache("autotune"));
        let directory = directory.as_deref();
        let tuned = tune::choose(options, config, cache, sequences, directory, &mut report)?;
        Ok(*self.tuned.get_or_init(|| tuned))
    }
}

/// A directory for data that one start keeps for the next.
pub fn own_cache(name: &str) -> Option<PathBuf> {
    dirs::cache_dir().map(|cache| cache.join("gemma4-wgpu").join(name))
}
