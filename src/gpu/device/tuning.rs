//! The fastest choices on a device, among the kernels that its [`Variant`] can run. They are flags
//! and plain numbers. The device's class chooses them unless an option sets them.

use crate::error::Result;
use crate::gpu::device::adapter::{AdapterFacts, Coop};
use crate::gpu::device::kernel_options::KernelOptions;
use crate::gpu::device::variant::Variant;

/// What a kernel is made for: the features and the fastest choices of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelTarget {
    pub variant: Variant,
    pub tuning: Tuning,
}

impl KernelTarget {
    /// The target for an adapter. Errors: see [`KernelOptions::resolve`].
    pub fn choose(facts: &AdapterFacts, options: &KernelOptions) -> Result<Self> {
        Ok(Self::new(facts, &options.resolve(facts)?))
    }

    pub(super) fn new(facts: &AdapterFacts, resolved: &KernelOptions) -> Self {
        let variant = Variant::new(facts, resolved);
        KernelTarget { variant, tuning: Tuning::new(facts, &variant, resolved) }
    }
}

/// The fastest choices on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Workgroups of 1024 where one workgroup has a whole row.
    pub large_workgroups: bool,
    /// Matrix products of many tokens with a row of activations in each invocation.
    pub row_per_invocation: bool,
    /// Weights are prefetched into the last-level cache while kernels run that leave the memory
    /// idle.
    pub prefetch: bool,
    /// During decode, one dispatch runs from one layer's attention to the next layer's. Its
    /// workgroups wait for one another.
    pub persistent: bool,
    /// Numbers of workgroups to try for a persistent kernel, the largest first.
    pub persistent_workgroups: &'static [usize],
    /// Weights are sent as they are in the file, and packed by the device. If neither this nor
    /// `inplace` is set, the host packs them and copies them.
    pub repack: bool,
    /// Weights are packed by the host in mapped memory of the device.
    pub inplace: bool,
    /// Int4 weights are interleaved in runs of 16 rows.
    pub interleave_weights: bool,
    /// Matrix-vector products of interleaved weights, for 1, 2, 4 and 8 rows of activations.
    pub matvec: [MatvecShape; 4],
    /// As `matvec`, for matrices of few rows.
    pub narrow_matvec: [MatvecShape; 4],
    /// Products of 9 to 64 rows of activations on cooperative matrices.
    pub coop_batch: bool,
    /// The most rows of int8 activations for matrix-vector products: 2, 4 or 8. With more rows,
    /// products on cooperative matrices are faster. For matrices of many rows, and of few.
    pub most_int8_rows: [usize; 2],
    /// Products on cooperative matrices of 16, 32 and 64 rows of activations.
    pub coop_rows: [CoopRows; 3],
    /// Workgroups of a cooperative product that run at the same time, where known. The work that
    /// remains after whole rounds of them is split over K.
    pub coop_round: Option<usize>,
    /// Attention of single tokens: invocations of a workgroup, and bytes of its memory to use.
    pub decode_workgroup: usize,
    pub decode_workgroup_bytes: usize,
    /// Most tokens of one submission, so that its work stays bounded on slow devices.
    pub max_step_tokens: usize,
    /// Tokens of a prompt and of an answer that are enough to measure speed.
    pub trial_tokens: [usize; 2],
}

/// Whether a matrix of this many rows has few workgroups.
pub fn is_narrow(rows: usize) -> bool {
    rows < 16384
}

/// How workgroups share a matrix-vector product of interleaved weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MatvecShape {
    /// Invocations.
    pub workgroup: usize,
    /// Runs of 16 rows that share one load of the activations.
    pub stack: usize,
    /// Workgroups over which K is split.
    pub splits: usize,
}

const fn matvec(workgroup: usize, stack: usize, splits: usize) -> MatvecShape {
    MatvecShape { workgroup, stack, splits }
}

/// How workgroups share a product of up to 64 rows of activations on cooperative matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoopRowsShape {
    /// Invocations, in subgroups of 32.
    pub workgroup: usize,
    /// Runs of 32 weight rows of a subgroup.
    pub passes: usize,
    /// Subgroups that divide the columns of the same weight rows.
    pub column_teams: usize,
}

impl CoopRowsShape {
    /// Weight rows of a workgroup.
    pub fn tile(&self) -> usize {
        self.workgroup / 32 / self.column_teams * self.passes * 32
    }
}

const fn coop_rows(workgroup: usize, passes: usize, column_teams: usize) -> CoopRowsShape {
    CoopRowsShape { workgroup, passes, column_teams }
}

const MOST_INT8_ROWS: [usize; 2] = [8; 2];
/// How to make products on cooperative matrices of a number of activation rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoopRows {
    /// From the largest tile to the smallest.
    pub shapes: &'static [CoopRowsShape],
    /// Workgroups of a larger tile that are enough, so that no smaller tile is taken.
    pub enough: usize,
    /// Workgroups over which to split a product whose results may be sums of splits.
    pub split: usize,
}

/// A workgroup on each of an H100's multiprocessors is enough.
const LARGE_COOP_ROWS: [CoopRows; 3] = [
    CoopRows { shapes: &[coop_rows(128, 2, 4), coop_rows(256, 1, 8)], enough: 132, split: 340 },
    CoopRows { shapes: &[coop_rows(128, 2, 4), coop_rows(256, 1, 8)], enough: 132, split: 680 },
    CoopRows { shapes: &[coop_rows(128, 2, 4)], enough: 132, split: 680 },
];

/// With several rows, loading activations takes longer than loading weights. Then more weights
/// share each load of activations.
const LARGE_MATVEC: [MatvecShape; 4] =
    [matvec(256, 1, 1), matvec(256, 4, 1), matvec(256, 2, 1), matvec(256, 3, 1)];
/// A matrix of few rows has few workgroups, which do not divide evenly among many multiprocessors.
/// More splits or larger workgroups compensate.
const LARGE_NARROW_MATVEC: [MatvecShape; 4] =
    [matvec(512, 1, 1), matvec(256, 4, 4), matvec(256, 2, 2), matvec(256, 3, 4)];
const SMALL_MATVEC: [MatvecShape; 4] =
    [matvec(256, 1, 1), matvec(128, 2, 1), matvec(128, 2, 1), matvec(128, 2, 1)];

/// Workgroups of a cooperative product that run at the same time on an H100. Each of its 132
/// multiprocessors runs two.
const LARGE_COOP_ROUND: usize = 264;

/// For an H100, with a workgroup on each multiprocessor, and for smaller cards. More workgroups
/// were not faster.
const PERSISTENT_WORKGROUPS: &[usize] = &[128, 96, 80, 64, 48, 32];
const PERSISTENT_WORKGROUPS_IN_SOFTWARE: &[usize] = &[1];

impl Tuning {
    /// The fastest choices for an adapter, according to its facts.
    fn new(facts: &AdapterFacts, variant: &Variant, options: &KernelOptions) -> Self {
        // Only large cards have such matrices with room for these kernels.
        let is_large = variant.coop == Some(Coop::Sixteen);
        let large_workgroups = options.large_workgroups == Some(true);
        let coop_batch = is_large && options.coop_batch == Some(true);
        let prefers_coop = coop_batch && variant.dp4a && options.int8_batch == Some(false);
        let (max_step_tokens, trial_tokens) = match facts.device_type.as_str() {
            "discrete GPU" => (512, [512, 64]),
            "CPU" => (128, [32, 4]),
            _ => (256, [128, 16]),
        };
        let (decode_workgroup, decode_workgroup_bytes) = match variant.subgroup_size {
            _ if is_large => (256, 46 << 10),
            _ if large_workgroups => (256, 31 << 10),
            // Subgroups of 4 mean a processor, in a browser too. Such drivers zero workgroup memory
            // before a kernel runs. That takes longer than the kernel itself unless the workgroup
            // and its memory are small.
            Some(4) => (64, 15 << 10),
            _ => (128, 15 << 10),
        };
        Tuning {
            large_workgroups,
            row_per_invocation: options.row_per_invocation == Some(true),
            prefetch: options.prefetch == Some(true),
            persistent: options.persistent == Some(true),
            persistent_workgroups: match facts.is_software() {
                true => PERSISTENT_WORKGROUPS_IN_SOFTWARE,
                false => PERSISTENT_WORKGROUPS,
            },
            repack: options.repack == Some(true),
            inplace: options.inplace == Some(true),
            interleave_weights: is_large,
            matvec: if is_large { LARGE_MATVEC } else { SMALL_MATVEC },
            narrow_matvec: if is_large { LARGE_NARROW_MATVEC } else { SMALL_MATVEC },
            coop_batch,
            most_int8_rows: if prefers_coop { [2; 2] } else { MOST_INT8_ROWS },
            coop_rows: LARGE_COOP_ROWS,
            coop_round: is_large.then_some(LARGE_COOP_ROUND),
            decode_workgroup,
            decode_workgroup_bytes,
            max_step_tokens,
            trial_tokens,
        }
    }

    /// The most rows of int8 activations for matrix-vector products of `rows` weight rows.
    pub fn most_int8_rows(&self, rows: usize) -> usize {
        self.most_int8_rows[usize::from(is_narrow(rows))]
    }

    /// The shape of a product of interleaved weights for `m` rows of activations.
    pub fn matvec(&self, is_narrow: bool, m: usize) -> MatvecShape {
        let shapes = if is_narrow { &self.narrow_matvec } else { &self.matvec };
        shapes[(m.max(1).next_power_of_two().ilog2() as usize).min(shapes.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(name: &str, api: &str, device_type: &str, subgroups: [u32; 2]) -> AdapterFacts {
        AdapterFacts {
            name: name.into(),
            api: api.into(),
            device_type: device_type.into(),
            subgroups: subgroups[0] > 0,
            subgroup_min_size: subgroups[0],
            subgroup_max_size: subgroups[1],
            unified_memory: device_type != "discrete GPU",
            cooperative_matrices: Vec::new(),
            ..AdapterFacts::example_card()
        }
    }

    fn h200() -> AdapterFacts {
        let card = AdapterFacts::example_card();
        AdapterFacts { name: "NVIDIA H200".into(), vendor: 0x10de, ..card }
    }

    /// The differences between adapters, in one line.
    fn chosen(facts: &AdapterFacts, options: &str) -> String {
        let options = options.parse().expect("options");
        let target = KernelTarget::choose(facts, &options).expect("what the adapter has");
        let KernelTarget { variant: v, tuning: t } = target;
        let flags = [
            (v.subgroups_contiguous, "contiguous"),
            (v.f16, "f16"),
            (v.dp4a, "dp4a"),
            (t.coop_batch, "batch"),
            (t.large_workgroups, "large"),
            (t.row_per_invocation, "row"),
            (t.persistent, "persistent"),
            (t.repack, "repack"),
            (t.inplace, "inplace"),
            (t.interleave_weights, "interleaved"),
        ];
        let on: Vec<&str> = flags.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        let matvec = [false, true].map(|narrow| {
            [1, 2, 4, 8].map(|m| {
                let MatvecShape { workgroup, stack, splits } = t.matvec(narrow, m);
                format!("{workgroup}/{stack}/{splits}")
            })
        });
        format!(
            "{:?} {:?} {:?}; {}; {} of {}; {:?} {}; {} at most; {}",
            v.subgroups,
            v.subgroup_size,
            v.coop,
            on.join(" "),
            t.decode_workgroup,
            t.decode_workgroup_bytes >> 10,
            t.coop_round,
            t.persistent_workgroups[0],
            t.max_step_tokens,
            if matvec[0] == matvec[1] { matvec[0].join(" ") } else { matvec.concat().join(" ") },
        )
    }

    #[test]
    fn facts_decide() {
        const SMALL: &str = "256/1/1 128/2/1 128/2/1 128/2/1";
        const LARGE: &str = "256/1/1 256/4/1 256/2/1 256/3/1 512/1/1 256/4/4 256/2/2 256/3/4";
        let metal = AdapterFacts {
            cooperative_matrices: vec![crate::gpu::device::adapter::CooperativeMatrix {
                m: 8,
                n: 8,
                k: 8,
                ..AdapterFacts::example_card().cooperative_matrices[0]
            }],
            max_workgroup_bytes: 32 << 10,
            coherent: false,
            ..adapter("Apple M4 Max", "metal", "integrated GPU", [4, 64])
        };
        let browser = AdapterFacts {
            shader_f16: false,
            mappable_storage: false,
            max_workgroup_invocations: 256,
            max_workgroup_bytes: 16 << 10,
            coherent: false,
            ..adapter("", "webgpu", "other", [0, 0])
        };
        let lavapipe = adapter("llvmpipe (LLVM 19.1.7, 256 bits)", "vulkan", "CPU", [8, 8]);
        let swiftshader = adapter("SwiftShader Device (Subzero)", "vulkan", "CPU", [4, 4]);
        let swiftshader = AdapterFacts { shader_f16: false, ..swiftshader };
        let integrated = adapter("Iris", "vulkan", "integrated GPU", [8, 32]);
        let radeon = adapter("AMD Radeon RX 7900 XTX", "vulkan", "discrete GPU", [32, 64]);
        let table = [
            (
                h200(),
                "",
                "Some(32) Some(32) Some(Sixteen); contiguous f16 dp4a batch large persistent \
                 repack interleaved; 256 of 46; Some(264) 128; 512 at most; ",
                LARGE,
            ),
            (
                h200(),
                "coop=off",
                "Some(32) Some(32) None; f16 dp4a large repack; 256 of 31; None 128; 512 at most; ",
                SMALL,
            ),
            (
                h200(),
                "dp4a=off,large_workgroups=off",
                "Some(32) Some(32) Some(Sixteen); contiguous f16 batch repack interleaved; \
                 256 of 46; Some(264) 128; 512 at most; ",
                LARGE,
            ),
            (
                lavapipe,
                "",
                "Some(8) Some(8) None; contiguous row inplace; 128 of 15; None 1; 128 at most; ",
                SMALL,
            ),
            (
                swiftshader,
                "",
                "Some(4) Some(4) None; inplace; 64 of 15; None 1; 128 at most; ",
                SMALL,
            ),
            (
                metal,
                "",
                "Some(4) None Some(Eight); f16 inplace; 128 of 15; None 128; 256 at most; ",
                SMALL,
            ),
            (browser, "", "None None None; repack; 128 of 15; None 128; 256 at most; ", SMALL),
            (
                integrated,
                "",
                "Some(8) None None; f16 inplace; 128 of 15; None 128; 256 at most; ",
                SMALL,
            ),
            (
                radeon,
                "",
                "Some(32) None None; f16 large repack; 256 of 31; None 128; 512 at most; ",
                SMALL,
            ),
        ];
        for (facts, options, head, matvec) in table {
            assert_eq!(chosen(&facts, options), format!("{head}{matvec}"), "{facts}, {options}");
        }
    }
}
