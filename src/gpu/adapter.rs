//! Adapter facts and the kernel variants that follow from them: the one place where they are decided.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::Serialize;

use crate::{Error, Result};

const NO_ADAPTER: &str = match cfg!(target_arch = "wasm32") {
    true => "no adapter: the browser's WebGPU has no graphics card to offer",
    false => "no adapter: install a Vulkan driver, or use --backend cpu",
};

const VENDOR_NVIDIA: u32 = 0x10de;

/// A matrix size that the adapter multiplies cooperatively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CooperativeMatrix {
    pub m: u32,
    pub n: u32,
    pub k: u32,
    pub f16_inputs: bool,
    pub f32_result: bool,
}

/// What is known of an adapter; chooses kernels and is shown by `gemma4-wgpu devices`.
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
    /// What kernels read and write can be mapped.
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
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            subgroup_min_size: info.subgroup_min_size,
            subgroup_max_size: info.subgroup_max_size,
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            timestamp_query: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            pipeline_cache: features.contains(wgpu::Features::PIPELINE_CACHE),
            unified_memory: matches!(info.device_type, wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::Cpu),
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

    /// Whether this is a software implementation.
    pub fn is_software(&self) -> bool {
        self.device_type == "CPU"
    }

    /// The cooperative matrices for which there are kernels that the adapter can run, with workgroups for them.
    fn coop_kernels(&self) -> Option<Coop> {
        let has = |size: u32| {
            let fits = |matrix: &CooperativeMatrix| {
                [matrix.m, matrix.n, matrix.k] == [size; 3] && matrix.f16_inputs && matrix.f32_result
            };
            self.cooperative_matrices.iter().any(fits)
        };
        let has_room =
            |bytes, invocations| self.max_workgroup_bytes >= bytes && self.max_workgroup_invocations >= invocations;
        let in_32 = self.subgroup_min_size == 32 && self.subgroup_max_size == 32;
        if has(16) && in_32 && has_room(48 << 10, 512) {
            return Some(Coop::Sixteen);
        }
        (has(8) && (in_32 || self.is_apple_on_metal()) && has_room(32 << 10, 256)).then_some(Coop::Eight)
    }

    /// Whether this is Apple's own GPU, whose subgroups all have 32 invocations. wgpu says 4 to 64 of all of Metal's, and that AMD's, Intel's
    /// and virtual machines' multiply matrices too, of which Metal's feature tables know nothing.
    fn is_apple_on_metal(&self) -> bool {
        self.api == "metal" && self.name.starts_with("Apple") && !self.name.to_lowercase().contains("virtual")
    }

    /// Tokens that one submit takes, so that its work stays bounded on slow devices.
    pub fn max_step_tokens(&self) -> usize {
        match self.device_type.as_str() {
            "discrete GPU" => 512,
            "CPU" => 128,
            _ => 256,
        }
    }
}

impl fmt::Display for AdapterFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.name, self.api, self.driver)
    }
}

/// Which device to open, and how.
#[derive(Debug, Clone, Default)]
pub struct DeviceOptions {
    /// Part of the adapter's name (any case), or its index; the most capable adapter if `None`.
    pub adapter: Option<String>,
    pub kernels: KernelOptions,
    /// The smallest and the largest subgroup where the browser opens devices with subgroups, though wgpu cannot ask it to
    /// (web/js/device.ts).
    pub browser_subgroups: Option<[u32; 2]>,
    /// Directory for compiled pipelines, so that the next start need not compile them again; none are kept if `None`, or where
    /// wgpu has no way to (it has with Vulkan).
    pub pipeline_cache: Option<PathBuf>,
}

/// Overrides of what adapter facts would choose; `None` leaves the choice to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelOptions {
    pub subgroups: Option<bool>,
    pub f16: Option<bool>,
    pub dp4a: Option<bool>,
    /// Matrix products and attention of many tokens on cooperative matrices.
    pub coop: Option<bool>,
    /// Workgroups of 1024 where one workgroup has a whole row.
    pub wide: Option<bool>,
    /// Matrix products of many tokens with a row of activations in each invocation.
    pub lanes: Option<bool>,
    /// Weights brought into the last-level cache ahead of generation's products.
    pub prefetch: Option<bool>,
    /// What lies between two layers' attention in one dispatch, when one token is generated.
    pub chain: Option<bool>,
    /// Weights sent as they lie in the file and laid out on the device.
    pub repack: Option<bool>,
    /// Weights laid out by the host in the device's memory.
    pub inplace: Option<bool>,
    /// Bounds checks and loop bounding in shaders; off unless asked for.
    pub checks: Option<bool>,
}

impl KernelOptions {
    /// Names of the options, as [`FromStr`] takes them.
    pub const NAMES: [&str; 11] =
        ["subgroups", "f16", "dp4a", "coop", "wide", "lanes", "prefetch", "chain", "repack", "inplace", "checks"];

    /// The option of a name; `None` where there is no such option.
    pub fn get(&self, name: &str) -> Option<Option<bool>> {
        let mut copy = *self;
        copy.field(name).map(|field| *field)
    }

    /// The option of a name, to be set; `None` where there is no such option.
    pub fn field(&mut self, name: &str) -> Option<&mut Option<bool>> {
        Some(match name {
            "subgroups" => &mut self.subgroups,
            "f16" => &mut self.f16,
            "dp4a" => &mut self.dp4a,
            "coop" => &mut self.coop,
            "wide" => &mut self.wide,
            "lanes" => &mut self.lanes,
            "prefetch" => &mut self.prefetch,
            "chain" => &mut self.chain,
            "repack" => &mut self.repack,
            "inplace" => &mut self.inplace,
            "checks" => &mut self.checks,
            _ => return None,
        })
    }
}

/// What [`KernelOptions`]'s `FromStr` reads: the options that are set, or nothing.
impl fmt::Display for KernelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = Self::NAMES.iter().filter_map(|name| Some((name, self.get(name)??)));
        let parts: Vec<_> = set.map(|(name, on)| format!("{name}={}", if on { "on" } else { "off" })).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for KernelOptions {
    type Err = String;

    /// `subgroups=off,f16=off,dp4a=on,coop=off,wide=off,lanes=off,prefetch=off,chain=on,repack=off,inplace=off,checks=on`, in any order, any part of it.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut options = KernelOptions::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("{part}: want NAME=on or NAME=off"))?;
            let value = match value {
                "on" => true,
                "off" => false,
                _ => return Err(format!("{part}: want {name}=on or {name}=off")),
            };
            let unknown = || format!("{name}: no such kernel option ({})", Self::NAMES.join(", "));
            *options.field(name).ok_or_else(unknown)? = Some(value);
        }
        Ok(options)
    }
}

/// Cooperative matrices of f16 with f32 sums, in subgroups of 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coop {
    /// 16 × 16, as Vulkan's drivers have them.
    Sixteen,
    /// 8 × 8, as Metal has them.
    Eight,
}

/// The form that kernels take on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The smallest subgroup size where subgroup operations are used; workgroup memory otherwise.
    pub subgroups: Option<u32>,
    /// The size of all subgroups, where there is only one.
    pub subgroup_size: Option<u32>,
    /// Tiles of matrix products with int weights in f16 instead of f32.
    pub f16: bool,
    /// Matrix-vector products of int weights with int8 activations (`dot4I8Packed`).
    pub dp4a: bool,
    /// Products and attention of many tokens on cooperative matrices.
    pub coop: Option<Coop>,
    /// Workgroups of 1024 where one workgroup has a whole row.
    pub wide: bool,
    /// Matrix products of many tokens with a row of activations in each invocation: for adapters that a processor plays.
    pub lanes: bool,
    /// Weights brought into the last-level cache while kernels run that leave the memory idle: where the cache is seen to be
    /// large when the device is opened.
    pub prefetch: bool,
    /// What lies between two layers' attention in one dispatch, whose workgroups wait for one another, when one token is generated.
    pub chain: bool,
    /// Weights sent to the device as they lie in the file, and laid out there. Not in browsers, where files come through memory in
    /// any case. Neither this nor `inplace`: packed by the host and copied.
    pub repack: bool,
    /// Weights laid out by the host in the device's memory, which is its own: a copy less than any other way.
    pub inplace: bool,
    /// Bounds checks and loop bounding compiled in.
    pub checks: bool,
}

impl Variant {
    /// The variant for an adapter. Errors if an option asks for what the adapter lacks.
    pub fn choose(facts: &AdapterFacts, options: &KernelOptions) -> Result<Self> {
        let lacking = |name: &str| Error::Device(format!("{facts} has no {name}: leave out {name}=on"));
        if options.subgroups == Some(true) && !facts.subgroups {
            return Err(lacking("subgroups"));
        }
        if options.f16 == Some(true) && !facts.shader_f16 {
            return Err(lacking("f16"));
        }
        let subgroups = options.subgroups.unwrap_or(facts.subgroups);
        let subgroup_size =
            (subgroups && facts.subgroup_min_size == facts.subgroup_max_size).then_some(facts.subgroup_max_size);
        // Software rasterizers convert every f16 by hand.
        let f16 = options.f16.unwrap_or(facts.shader_f16 && !facts.is_software());
        let can_coop = facts.coop_kernels().filter(|_| subgroups && f16);
        let can_be_wide = facts.max_workgroup_invocations >= 1024 && facts.max_workgroup_bytes >= 32 << 10;
        if options.wide == Some(true) && !can_be_wide {
            return Err(lacking("wide"));
        }
        let can_use_lanes = subgroup_size.is_some_and(|size| size >= 4 && size.is_power_of_two());
        if options.lanes == Some(true) && !can_use_lanes {
            return Err(lacking("lanes"));
        }
        if options.chain == Some(true) && !facts.coherent {
            return Err(lacking("chain"));
        }
        if options.coop == Some(true) && can_coop.is_none() {
            return Err(lacking("coop"));
        }
        let coop = can_coop.filter(|_| options.coop != Some(false));
        // One instruction where the driver says so; an expansion elsewhere.
        let dp4a = options.dp4a.unwrap_or(facts.vendor == VENDOR_NVIDIA && facts.api == "vulkan");
        // Only there is it known to be faster.
        let can_chain = facts.coherent && facts.vendor == VENDOR_NVIDIA && facts.device_type == "discrete GPU";
        if options.inplace == Some(true) && !facts.mappable_storage {
            return Err(lacking("inplace"));
        }
        if options.inplace == Some(true) && options.repack == Some(true) {
            return Err(Error::Input("repack=on and inplace=on exclude each other".into()));
        }
        // Who asks for one of the other two ways gets it.
        let can_be_in_place = facts.unified_memory && facts.mappable_storage && options.repack.is_none();
        let inplace = options.inplace.unwrap_or(can_be_in_place);
        Ok(Variant {
            subgroups: subgroups.then_some(facts.subgroup_min_size.max(1)),
            subgroup_size,
            f16,
            coop,
            // Few rows leave a large device idle but for the one workgroup's own latency.
            // With four lanes (SwiftShader) tiles in workgroup memory are as fast.
            lanes: options.lanes.unwrap_or(facts.is_software() && subgroup_size >= Some(8)),
            wide: options.wide.unwrap_or(can_be_wide && facts.device_type == "discrete GPU"),
            dp4a,
            prefetch: options.prefetch.unwrap_or(false),
            chain: options.chain.unwrap_or(can_chain && coop == Some(Coop::Sixteen) && dp4a),
            repack: options.repack.unwrap_or(!inplace && !cfg!(target_arch = "wasm32")),
            inplace,
            checks: options.checks.unwrap_or(false),
        })
    }
}

pub(super) fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends &= wgpu::Backends::PRIMARY;
    // Refuse a model that does not fit before the driver starts to swap.
    descriptor.memory_budget_thresholds.for_resource_creation = Some(97);
    wgpu::Instance::new(descriptor)
}

async fn enumerate(instance: &wgpu::Instance) -> Vec<(AdapterFacts, wgpu::Adapter)> {
    #[cfg(not(target_arch = "wasm32"))]
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    // A browser shows one, which is the slower one of two unless it is told.
    #[cfg(target_arch = "wasm32")]
    let adapters = {
        let power_preference = wgpu::PowerPreference::HighPerformance;
        let wanted = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
        instance.request_adapter(&wanted).await.ok()
    };
    adapters.into_iter().enumerate().map(|(i, adapter)| (AdapterFacts::read(i, &adapter), adapter)).collect()
}

/// All adapters of this machine that can run compute shaders.
pub async fn adapters() -> Vec<AdapterFacts> {
    enumerate(&instance()).await.into_iter().map(|(facts, _)| facts).collect()
}

/// The adapter that `wanted` names, or the most capable one.
///
/// Errors: no adapter at all (the message starts with `no adapter`), or none that matches.
pub(super) async fn select(instance: &wgpu::Instance, wanted: Option<&str>) -> Result<(AdapterFacts, wgpu::Adapter)> {
    let mut found = enumerate(instance).await;
    if found.is_empty() {
        return Err(Error::Device(NO_ADAPTER.into()));
    }
    let chosen = match wanted {
        Some(wanted) => {
            let lower = wanted.to_lowercase();
            // A number is an index before it is a part of a name.
            let by_index = found.iter().position(|(facts, _)| facts.index.to_string() == lower);
            let by_name = || {
                let matches = |facts: &AdapterFacts| facts.name.to_lowercase().contains(&lower);
                found.iter().position(|(facts, _)| !lower.is_empty() && matches(facts))
            };
            by_index.or_else(by_name).ok_or_else(|| {
                let names: Vec<String> = found.iter().map(|(f, _)| format!("{}: {}", f.index, f.name)).collect();
                Error::Device(format!("no adapter matches {wanted:?}; there are {}", names.join(", ")))
            })?
        }
        None => {
            let rank = |facts: &AdapterFacts| match facts.device_type.as_str() {
                "discrete GPU" => 0,
                "integrated GPU" => 1,
                "virtual GPU" => 2,
                "other" => 3,
                _ => 4,
            };
            (0..found.len()).min_by_key(|&i| rank(&found[i].0)).unwrap_or(0)
        }
    };
    Ok(found.swap_remove(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of a name whose subgroups have sizes from `subgroups[0]` to `subgroups[1]`, with square matrices of these sizes.
    fn coop(
        api: &str,
        name: &str,
        subgroups: [u32; 2],
        sizes: &[u32],
        workgroup_bytes: u32,
        options: &str,
    ) -> Option<Coop> {
        let matrix = |&size| CooperativeMatrix { m: size, n: size, k: size, f16_inputs: true, f32_result: true };
        let facts = AdapterFacts {
            index: 0,
            name: name.into(),
            api: api.into(),
            device_type: "integrated GPU".into(),
            driver: String::new(),
            vendor: 0,
            subgroups: true,
            subgroup_min_size: subgroups[0],
            subgroup_max_size: subgroups[1],
            shader_f16: true,
            timestamp_query: true,
            pipeline_cache: false,
            unified_memory: true,
            mappable_storage: true,
            cooperative_matrices: sizes.iter().map(matrix).collect(),
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            max_workgroup_bytes: workgroup_bytes,
            max_workgroup_invocations: 1024,
            max_workgroups_per_dimension: 65535,
            max_storage_buffers: 31,
            coherent: false,
        };
        let options = options.parse().expect("options");
        Variant::choose(&facts, &options).expect("what the device can do").coop
    }

    #[test]
    fn matrices_are_those_that_kernels_are_written_for() {
        // What wgpu says of all of Metal's devices.
        let metal = |name, options| coop("metal", name, [4, 64], &[8], 32 << 10, options);
        assert_eq!(metal("Apple M4 Max", ""), Some(Coop::Eight));
        assert_eq!(metal("Apple M4 Max", "coop=on"), Some(Coop::Eight));
        assert_eq!(metal("Apple M4 Max", "coop=off"), None);
        assert_eq!(metal("Apple M4 Max", "f16=off"), None);
        assert_eq!(metal("Apple M4 Max", "subgroups=off"), None);
        assert_eq!(metal("Apple Paravirtual device", ""), None);
        assert_eq!(metal("AMD Radeon Pro 5500M", ""), None);
        let vulkan = |subgroups, sizes: &[u32], bytes| coop("vulkan", "a card", subgroups, sizes, bytes, "");
        assert_eq!(vulkan([32, 32], &[16], 48 << 10), Some(Coop::Sixteen));
        assert_eq!(vulkan([32, 32], &[8, 16], 48 << 10), Some(Coop::Sixteen));
        assert_eq!(vulkan([32, 32], &[8, 16], 32 << 10), Some(Coop::Eight));
        assert_eq!(vulkan([32, 64], &[16], 48 << 10), None);
        assert_eq!(vulkan([8, 8], &[8], 32 << 10), None);
        assert_eq!(vulkan([32, 32], &[], 48 << 10), None);
    }
}
