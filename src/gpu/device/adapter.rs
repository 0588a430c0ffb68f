//! Facts about the adapters of a machine.

use std::fmt;

use serde::Serialize;

/// Parts of the names of software drivers, in small letters. Their APIs do not always report the
/// device type CPU.
const SOFTWARE: [&str; 3] = ["llvmpipe", "swiftshader", "microsoft basic render driver"];

/// Cooperative matrices of f16 with f32 sums, in subgroups of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coop {
    /// 16 × 16, as Vulkan's drivers have them.
    Sixteen,
    /// 8 × 8, as Metal has them.
    Eight,
}

/// A matrix size that the adapter multiplies cooperatively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CooperativeMatrix {
    pub m: u32,
    pub n: u32,
    pub k: u32,
    pub f16_inputs: bool,
    pub f32_result: bool,
}

/// Facts about an adapter, which choose its kernels. `gemma4-wgpu devices` shows them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterFacts {
    /// Place in the list of [`adapters`].
    pub index: usize,
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `webgpu`…
    pub api: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `CPU`, `other`.
    pub device_type: String,
    pub driver: String,
    /// PCI vendor id.
    pub vendor: u32,
    /// PCI id of the model, by that vendor.
    pub device: u32,
    /// `domain:bus:device.function`; `None` if there is none or the API does not report it.
    pub pci_bus_id: Option<String>,
    /// Subgroup operations usable in WGSL.
    pub subgroups: bool,
    pub subgroup_min_size: u32,
    pub subgroup_max_size: u32,
    /// 16-bit floats usable in WGSL.
    pub shader_f16: bool,
    pub timestamp_query: bool,
    pub pipeline_cache: bool,
    /// Memory is shared with the host.
    pub unified_memory: bool,
    /// Buffers that kernels read and write can be mapped.
    pub mappable_storage: bool,
    pub cooperative_matrices: Vec<CooperativeMatrix>,
    /// Bytes of one storage binding.
    pub max_binding_bytes: u64,
    /// Bytes of one buffer.
    pub max_buffer_bytes: u64,
    /// Bytes of workgroup memory.
    pub max_workgroup_bytes: u32,
    pub max_workgroup_invocations: u32,
    pub max_workgroups_per_dimension: u32,
    pub max_storage_buffers: u32,
    /// Buffers can be coherent: workgroups that run at the same time can exchange data.
    pub coherent: bool,
}

impl AdapterFacts {
    fn read(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let matrices = match features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            true => adapter.cooperative_matrix_properties(),
            false => Vec::new(),
        };
        AdapterFacts {
            index,
            name: info.name,
            api: info.backend.to_str().to_string(),
            device_type: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete GPU",
                wgpu::DeviceType::IntegratedGpu => "integrated GPU",
                wgpu::DeviceType::VirtualGpu => "virtual GPU",
                wgpu::DeviceType::Cpu => "CPU",
                wgpu::DeviceType::Other => "other",
            }
            .to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            vendor: info.vendor,
            device: info.device,
            pci_bus_id: Some(info.device_pci_bus_id).filter(|id| !id.is_empty()),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            subgroup_min_size: info.subgroup_min_size,
            subgroup_max_size: info.subgroup_max_size,
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            timestamp_query: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            pipeline_cache: features.contains(wgpu::Features::PIPELINE_CACHE),
            unified_memory: matches!(
                info.device_type,
                wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::Cpu
            ),
            mappable_storage: features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
            cooperative_matrices: matrices
                .iter()
                .map(|matrix| CooperativeMatrix {
                    m: matrix.m_size,
                    n: matrix.n_size,
                    k: matrix.k_size,
                    f16_inputs: matrix.ab_type == wgpu::CooperativeScalarType::F16,
                    f32_result: matrix.cr_type == wgpu::CooperativeScalarType::F32,
                })
                .collect(),
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            coherent: features.contains(wgpu::Features::MEMORY_DECORATION_COHERENT)
                && info.backend == wgpu::Backend::Vulkan,
        }
    }

    /// Whether this is a software implementation, such as lavapipe, SwiftShader or WARP.
    pub fn is_software(&self) -> bool {
        let name = self.name.to_lowercase();
        self.device_type == "CPU" || SOFTWARE.iter().any(|part| name.contains(part))
    }

    /// The size of all subgroups, where there is only one.
    pub fn subgroup_size(&self) -> Option<u32> {
        (self.subgroup_min_size == self.subgroup_max_size).then_some(self.subgroup_max_size)
    }

    /// Whether kernels are compiled when they first run, not when their pipelines are made. All
    /// software drivers except SwiftShader do this.
    #[cfg(not(target_arch = "wasm32"))]
    pub(in crate::gpu) fn compiles_at_first_run(&self) -> bool {
        self.is_software() && !self.name.to_lowercase().contains("swiftshader")
    }

    /// The cooperative matrices that the kernels support and the adapter can run. The adapter must
    /// also allow the kernels' workgroups.
    pub(in crate::gpu) fn coop_kernels(&self) -> Option<Coop> {
        let has = |size: u32| {
            let fits = |matrix: &CooperativeMatrix| {
                [matrix.m, matrix.n, matrix.k] == [size; 3]
                    && matrix.f16_inputs
                    && matrix.f32_result
            };
            self.cooperative_matrices.iter().any(fits)
        };
        let has_room = |bytes, invocations| {
            self.max_workgroup_bytes >= bytes && self.max_workgroup_invocations >= invocations
        };
        let in_32 = self.subgroup_min_size == 32 && self.subgroup_max_size == 32;
        if has(16) && in_32 && has_room(48 << 10, 512) {
            return Some(Coop::Sixteen);
        }
        (has(8) && (in_32 || self.is_apple_on_metal()) && has_room(32 << 10, 256))
            .then_some(Coop::Eight)
    }

    /// Whether this is Apple's own GPU, whose subgroups all have 32 invocations. wgpu's facts do
    /// not show it: for all of Metal's devices it reports sizes from 4 to 64. It also reports
    /// matrices for AMD's, Intel's and virtual devices, which Metal's feature tables do not list.
    fn is_apple_on_metal(&self) -> bool {
        self.api == "metal"
            && self.name.starts_with("Apple")
            && !self.name.to_lowercase().contains("virtual")
    }

    /// A discrete card with all features, for tests of the choices by facts.
    pub fn example_card() -> Self {
        AdapterFacts {
            index: 0,
            name: "card".into(),
            api: "vulkan".into(),
            device_type: "discrete GPU".into(),
            driver: "1".into(),
            vendor: 1,
            device: 1,
            pci_bus_id: None,
            subgroups: true,
            subgroup_min_size: 32,
            subgroup_max_size: 32,
            shader_f16: true,
            timestamp_query: true,
            pipeline_cache: true,
            unified_memory: false,
            mappable_storage: true,
            cooperative_matrices: vec![CooperativeMatrix {
                m: 16,
                n: 16,
                k: 16,
                f16_inputs: true,
                f32_result: true,
            }],
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            max_workgroup_bytes: 48 << 10,
            max_workgroup_invocations: 1024,
            max_workgroups_per_dimension: 65535,
            max_storage_buffers: 32,
            coherent: true,
        }
    }
}

impl fmt::Display for AdapterFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.api, self.driver)
    }
}

pub(in crate::gpu) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends &= wgpu::Backends::PRIMARY;
    // Refuse a model that does not fit before the driver starts to swap.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(97);
    wgpu::Instance::new(descriptor)
}

pub(super) async fn enumerate(instance: &wgpu::Instance) -> Vec<(AdapterFacts, wgpu::Adapter)> {
    #[cfg(not(target_arch = "wasm32"))]
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    // A browser offers one adapter. Without a preference that is the slower one of two.
    #[cfg(target_arch = "wasm32")]
    let adapters = {
        let power_preference = wgpu::PowerPreference::HighPerformance;
        let wanted = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
        instance.request_adapter(&wanted).await.ok()
    };
    adapters
        .into_iter()
        .enumerate()
        .map(|(i, adapter)| (AdapterFacts::read(i, &adapter), adapter))
        .collect()
}

/// All adapters of this machine that can run compute shaders.
pub async fn adapters() -> Vec<AdapterFacts> {
    enumerate(&instance()).await.into_iter().map(|(facts, _)| facts).collect()
}
