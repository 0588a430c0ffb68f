//! The kernel features that a device can run, from the adapter's facts.

use crate::gpu::device::adapter::{AdapterFacts, Coop};
use crate::gpu::device::kernel_options::KernelOptions;

/// The kernel features that a device can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The smallest subgroup size where subgroup operations are used; workgroup memory otherwise.
    pub subgroups: Option<u32>,
    /// The size of all subgroups, where there is only one.
    pub subgroup_size: Option<u32>,
    /// Invocations of a subgroup are known to be contiguous in their workgroup.
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
    /// The variant for an adapter with all options decided.
    pub(super) fn new(facts: &AdapterFacts, options: &KernelOptions) -> Self {
        let subgroups = options.subgroups == Some(true);
        let coop = facts.coop_kernels().filter(|_| options.coop == Some(true));
        Variant {
            subgroups: subgroups.then_some(facts.subgroup_min_size.max(1)),
            subgroup_size: facts.subgroup_size().filter(|_| subgroups),
            // Assumed where the chosen kernels rely on it in any case.
            subgroups_contiguous: coop == Some(Coop::Sixteen)
                || options.row_per_invocation == Some(true),
            f16: options.f16 == Some(true),
            dp4a: options.dp4a == Some(true),
            coop,
            checks: options.checks == Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::device::adapter::CooperativeMatrix;

    /// A device of this name whose subgroups have sizes from `subgroups[0]` to `subgroups[1]`. It
    /// multiplies square matrices of these sizes.
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
        let options: KernelOptions = options.parse().expect("options");
        let options = options.resolve(&facts).expect("what the device can do");
        Variant::new(&facts, &options).coop
    }

    #[test]
    fn matrices_are_those_that_kernels_are_written_for() {
        // wgpu reports this of all of Metal's devices.
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
