//! What kernels can run on a device, from the adapter's facts.

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

/// What kernels can run on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The smallest subgroup size where subgroup operations are used; workgroup memory otherwise.
    pub subgroups: Option<u32>,
    /// The size of all subgroups, where there is only one.
    pub subgroup_size: Option<u32>,
    /// Invocations of a subgroup are known to follow one another in their workgroup.
    pub subgroups_contiguous: bool,
    /// Tiles of matrix products with int weights in f16 instead of f32.
    pub f16: bool,
    /// Matrix-vector products of int weights with int8 activations (`dot4I8Packed`).
    pub dp4a: bool,
    /// Products and attention of many tokens on cooperative matrices.
    pub coop: Option<Coop>,
    /// Bounds checks and loop bounding compiled in.
    pub checks: bool,
}

impl Variant {
    /// The variant for an adapter. Errors if an option asks for what the adapter lacks.
    pub fn choose(facts: &AdapterFacts, options: &KernelOptions) -> Result<Self> {
        if options.subgroups == Some(true) && !facts.subgroups {
            return Err(lacking(facts, "subgroups"));
        }
        if options.f16 == Some(true) && !facts.shader_f16 {
            return Err(lacking(facts, "f16"));
        }
        let subgroups = options.subgroups.unwrap_or(facts.subgroups);
        let subgroup_size = (subgroups && facts.subgroup_min_size == facts.subgroup_max_size)
            .then_some(facts.subgroup_max_size);
        // Software rasterizers convert every f16 by hand.
        let f16 = options.f16.unwrap_or(facts.shader_f16 && !facts.is_software());
        let can_coop = facts.coop_kernels().filter(|_| subgroups && f16);
        if options.coop == Some(true) && can_coop.is_none() {
            return Err(lacking(facts, "coop"));
        }
        let coop = can_coop.filter(|_| options.coop != Some(false));
        Ok(Variant {
            subgroups: subgroups.then_some(facts.subgroup_min_size.max(1)),
            subgroup_size,
            // Where the kernels that are chosen rely on it in any case.
            subgroups_contiguous: coop == Some(Coop::Sixteen)
                || row_per_invocation(facts, subgroup_size, options)?,
            f16,
            // One instruction where the driver says so; an expansion elsewhere.
            dp4a: options.dp4a.unwrap_or(facts.vendor == VENDOR_NVIDIA && facts.api == "vulkan"),
            coop,
            checks: options.checks.unwrap_or(false),
        })
    }
}

/// Whether products have a row of activations in each invocation: on a processor, whose vector registers subgroups are. With four
/// lanes tiles in workgroup memory are as fast. Errors if it is asked for and subgroups do not
/// allow it.
pub(super) fn row_per_invocation(
    facts: &AdapterFacts,
    subgroup_size: Option<u32>,
    options: &KernelOptions,
) -> Result<bool> {
    let can = subgroup_size.is_some_and(|size| size >= 4 && size.is_power_of_two());
    if options.lanes == Some(true) && !can {
        return Err(lacking(facts, "lanes"));
    }
    Ok(options.lanes.unwrap_or(facts.is_software() && subgroup_size >= Some(8)))
}

/// An option that asks for what an adapter lacks.
pub(super) fn lacking(facts: &AdapterFacts, name: &str) -> Error {
    Error::Device(format!("{facts} has no {name}: leave out {name}=on"))
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
            ..AdapterFacts::example_card()
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
