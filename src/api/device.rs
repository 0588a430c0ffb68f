//! The device of a model, and loading a model there.

use crate::api::{mlx, open::ModelOptions};
use crate::backend::{Backend, BackendKind};
use crate::cpu::{CpuBackend, CpuOptions};
use crate::error::{Error, Result};
use crate::gpu::{AdapterFacts, DeviceOptions, Gpu, GpuBackend, KernelOptions};
use crate::model::{source::TensorSource, weights::LoadOptions};

/// The device of a model.
#[derive(Clone)]
pub(crate) enum Device {
    Gpu(Gpu),
    Cpu,
    Mlx,
}

impl ModelOptions {
    /// The device, if the options choose one that needs no adapter.
    pub(crate) fn without_adapter(&self) -> Option<Device> {
        match self.backend {
            BackendKind::Cpu => Some(Device::Cpu),
            BackendKind::Mlx => Some(Device::Mlx),
            BackendKind::Auto if !self.asks_for_gpu() && mlx::is_preferred() => Some(Device::Mlx),
            BackendKind::Auto | BackendKind::Wgpu => None,
        }
    }

    /// The device to run on. Without a GPU it is the CPU, with a logged warning, unless the options
    /// concern an adapter.
    pub(crate) fn open_device(&self) -> Result<Device> {
        if let Some(device) = self.without_adapter() {
            return Ok(device);
        }
        let opened = self.open_gpu();
        if self.backend == BackendKind::Auto
            && !self.asks_for_gpu()
            && let Some(reason) = reason_for_cpu(opened.as_ref().map(Gpu::facts))
        {
            log::warn!("{reason}");
            return Ok(Device::Cpu);
        }
        opened.map(Device::Gpu)
    }

    /// The adapter that the options name, or the most capable one.
    pub(crate) fn open_gpu(&self) -> Result<Gpu> {
        pollster::block_on(Gpu::open(&self.device_options()))
    }

    /// The device's options. With exact activations, the kernel option dp4a is off.
    pub(crate) fn device_options(&self) -> DeviceOptions {
        let mut device = self.device.clone();
        if self.exact {
            device.kernels.dp4a = Some(false);
        }
        device
    }

    /// Loads a model. `progress` gets the bytes read since its last call.
    pub(crate) async fn load(
        &self,
        device: Device,
        source: &dyn TensorSource,
        options: &LoadOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Box<dyn Backend>> {
        Ok(match device {
            Device::Gpu(gpu) => Box::new(GpuBackend::load(gpu, source, options, progress).await?),
            Device::Cpu => {
                let (exact, threads) = (self.exact, self.threads);
                let cpu = CpuOptions { exact, threads, instructions: self.instructions };
                Box::new(CpuBackend::load_with(source, options, &cpu, progress).await?)
            }
            Device::Mlx => mlx::load(source, options, self.exact, progress).await?,
        })
    }

    fn asks_for_gpu(&self) -> bool {
        self.device.adapter.is_some() || self.device.kernels != KernelOptions::default()
    }
}

/// The reason why `Auto` takes the CPU, if there is one. `opened` is the result of opening the most
/// capable adapter. The reason is that there is no adapter, or only a software driver. A software
/// driver is not faster than the CPU backend, and must compile kernels first. `None` for a GPU, or
/// for an error to report.
fn reason_for_cpu(opened: Result<&AdapterFacts, &Error>) -> Option<String> {
    match opened {
        Ok(facts) if facts.is_software() => {
            let name = &facts.name;
            Some(format!(
                "no adapter but {name}, a software driver: running on the CPU \
                 (--backend wgpu runs on the driver)"
            ))
        }
        Err(Error::NoAdapter(_)) => Some(
            "no adapter: running on the CPU, which is slow (a GPU needs a Vulkan driver)".into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::select;

    /// The reason if these are all the adapters.
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
            let expected = format!("no adapter but {}, a software driver", driver.name);
            assert!(reason.starts_with(&expected), "{reason}");
        }
        assert!(reason(&software).unwrap().contains("llvmpipe"));
        assert!(reason(&[]).unwrap().starts_with("no adapter: running on the CPU"));
        for kind in ["discrete GPU", "integrated GPU", "virtual GPU", "other"] {
            assert_eq!(reason(&[&software[..], &[adapter("a card", kind)]].concat()), None);
        }
        // Other errors when an adapter opens are reported.
        let broken = Error::Device("lost".into());
        assert_eq!(reason_for_cpu(Err(&broken)), None);
    }
}
