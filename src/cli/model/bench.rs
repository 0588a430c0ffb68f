//! Models that `bench` measures.

use crate::api::device::Device;
use crate::backend::Backend;
use crate::cli::{memory::Memory, mlx, model::ModelArgs};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, GpuBackend};
use crate::model::{config::ModelConfig, source::TensorSource, synthetic::SyntheticSource};

impl ModelArgs {
    /// Loads a checkpoint to measure it. Returns also the device's read ceiling in GB/s.
    pub fn load_for_bench(
        &self,
        positions: usize,
        sequences: usize,
    ) -> Result<(String, Box<dyn Backend>, Option<f64>)> {
        let checkpoint = self.open()?;
        self.check_bench(positions, checkpoint.config())?;
        let options = self.options()?;
        let load = options.load_options(positions, sequences);
        let device = self.open_device(checkpoint.config(), sequences)?;
        let (ceiling, memory) = match &device {
            Device::Mlx => (None, None),
            Device::Gpu(gpu) => (
                Some(read_ceiling(gpu)?),
                Some(Memory::for_bench(Some(gpu.clone()), &checkpoint, load)?),
            ),
            Device::Cpu => (None, Some(Memory::for_bench(None, &checkpoint, load)?)),
        };
        memory.as_ref().map_or(Ok(()), Memory::check)?;
        let loaded = self.load_on(device, &checkpoint, &load);
        let backend = loaded.map_err(|error| match &memory {
            Some(memory) => memory.explain(error),
            None => error,
        })?;
        Ok((checkpoint.description().to_owned(), backend, ceiling))
    }

    /// Makes a model of random weights on the device. Returns also the device's read ceiling in
    /// GB/s.
    pub fn load_synthetic(
        &self,
        name: &str,
        positions: usize,
        sequences: usize,
        seed: u32,
    ) -> Result<(Box<dyn Backend>, Option<f64>)> {
        let config = ModelConfig::named(name)?;
        self.check_bench(positions, &config)?;
        let options = self.options()?;
        let load = options.load_options(positions, sequences);
        // A software driver is allowed too, because the CPU backend has no such models.
        let gpu = match options.without_adapter() {
            None => self.open_gpu(&config, sequences)?,
            Some(Device::Mlx) => {
                let made = mlx::synthetic(config, &load, options.exact, seed.into());
                return Ok((pollster::block_on(made)?, None));
            }
            Some(_) => {
                return Err(Error::Input(
                    "synthetic models need an adapter, or --backend mlx".into(),
                ));
            }
        };
        let source = SyntheticSource::new(config.clone());
        let memory = Memory::for_bench(Some(gpu.clone()), &source, load)?;
        memory.check()?;
        let ceiling = read_ceiling(&gpu)?;
        self.note_compiling(&gpu);
        let made = pollster::block_on(GpuBackend::synthetic(gpu, config, &load, seed));
        Ok((Box::new(made.map_err(|error| memory.explain(error))?), Some(ceiling)))
    }

    /// Errors if the tests need more positions than the model has. Errors also if a context is set,
    /// because the tests make their own.
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
}

fn read_ceiling(gpu: &Gpu) -> Result<f64> {
    Ok(gpu.read_bandwidth()? / 1e9)
}
