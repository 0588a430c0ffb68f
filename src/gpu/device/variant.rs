//! The form that kernels take on a device, chosen from the adapter's facts: the one place where
//! that is decided.

use crate::{
    error::{Error, Result},
    gpu::device::{adapter::AdapterFacts, kernel_options::KernelOptions},
};

const VENDOR_NVIDIA: u32 = 0x10de;

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
    /// Matrix products of many tokens with a row of activations in each invocation: for adapters
    /// that a processor plays.
    pub lanes: bool,
    /// Weights brought into the last-level cache while kernels run that leave the memory idle:
    /// where the cache is seen to be large when the device is opened.
    pub prefetch: bool,
    /// What lies between two layers' attention in one dispatch, whose workgroups wait for one
    /// another, when one token is generated.
    pub chain: bool,
    /// Weights sent to the device as they lie in the file, and laid out there. Not in browsers,
    /// where files come through memory in any case. Neither this nor `inplace`: packed by the host
    /// and copied.
    pub repack: bool,
    /// Weights laid out by the host in the device's memory, which is its own: a copy less than any
    /// other way.
    pub inplace: bool,
    /// Bounds checks and loop bounding compiled in.
    pub checks: bool,
}

impl Variant {
    /// The variant for an adapter. Errors if an option asks for what the adapter lacks.
    pub fn choose(facts: &AdapterFacts, options: &KernelOptions) -> Result<Self> {
        let lacking =
            |name: &str| Error::Device(format!("{facts} has no {name}: leave out {name}=on"));
        if options.subgroups == Some(true) && !facts.subgroups {
            return Err(lacking("subgroups"));
        }
        if options.f16 == Some(true) && !facts.shader_f16 {
            return Err(lacking("f16"));
        }
        let subgroups = options.subgroups.unwrap_or(facts.subgroups);
        let subgroup_size = (subgroups && facts.subgroup_min_size == facts.subgroup_max_size)
            .then_some(facts.subgroup_max_size);
        // Software rasterizers convert every f16 by hand.
        let f16 = options.f16.unwrap_or(facts.shader_f16 && !facts.is_software());
        let can_coop = facts.coop_kernels().filter(|_| subgroups && f16);
        let can_be_wide =
            facts.max_workgroup_invocations >= 1024 && facts.max_workgroup_bytes >= 32 << 10;
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
        let can_chain =
            facts.coherent && facts.vendor == VENDOR_NVIDIA && facts.device_type == "discrete GPU";
        if options.inplace == Some(true) && !facts.mappable_storage {
            return Err(lacking("inplace"));
        }
        if options.inplace == Some(true) && options.repack == Some(true) {
            return Err(Error::Input("repack=on and inplace=on exclude each other".into()));
        }
        // Who asks for one of the other two ways gets it.
        let can_be_in_place =
            facts.unified_memory && facts.mappable_storage && options.repack.is_none();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::device::adapter::CooperativeMatrix;

    /// A device of a name whose subgroups have sizes from `subgroups[0]` to `subgroups[1]`, with
    /// square matrices of these sizes.
    fn coop(
        api: &str,
        name: &str,
        subgroups: [u32; 2],
        sizes: &[u32],
        workgroup_bytes: u32,
        options: &str,
    ) -> Option<Coop> {
        let matrix = |&size| CooperativeMatrix {
            m: size,
            n: size,
            k: size,
            f16_inputs: true,
            f32_result: true,
        };
        let facts = AdapterFacts {
            name: name.into(),
            api: api.into(),
            device_type: "integrated GPU".into(),
            subgroup_min_size: subgroups[0],
            subgroup_max_size: subgroups[1],
            cooperative_matrices: sizes.iter().map(matrix).collect(),
            max_workgroup_bytes: workgroup_bytes,
            coherent: false,
            ..AdapterFacts::invented()
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
        let vulkan =
            |subgroups, sizes: &[u32], bytes| coop("vulkan", "a card", subgroups, sizes, bytes, "");
        assert_eq!(vulkan([32, 32], &[16], 48 << 10), Some(Coop::Sixteen));
        assert_eq!(vulkan([32, 32], &[8, 16], 48 << 10), Some(Coop::Sixteen));
        assert_eq!(vulkan([32, 32], &[8, 16], 32 << 10), Some(Coop::Eight));
        assert_eq!(vulkan([32, 64], &[16], 48 << 10), None);
        assert_eq!(vulkan([8, 8], &[8], 32 << 10), None);
        assert_eq!(vulkan([32, 32], &[], 48 << 10), None);
    }
}
