use gemma4_wgpu::{
    gpu::{
        Extent, Gpu, Grid, KernelSource, KernelTarget,
        kernels::{Kernel, Linear, PersistentLayer},
    },
    quant::PackFormat,
};

use super::{Case, Formats, Parts, Sizes};
use crate::{combinations::on_devices_where, harness::*};

const SMALL: Sizes = Sizes { n: 64, attention: [2, 32], ffn: 128, qkv: 48, input: 0 };

/// The devices that can run the kernel. There are some wherever the adapter can.
fn with_neighbours() -> Vec<&'static Gpu> {
    let can = |gpu: &&Gpu| {
        gpu.facts().coherent
            && gpu.variant().subgroups_contiguous
            && gpu.variant().subgroup_size >= Some(8)
    };
    let found: Vec<&Gpu> = devices().iter().filter(can).collect();
    let facts = devices()[0].facts();
    let fits = facts.coherent
        && facts.subgroup_min_size >= 8
        && facts.subgroup_min_size == facts.subgroup_max_size;
    assert_eq!(!found.is_empty(), fits, "{facts}");
    found
}

/// A software adapter with too few threads runs one workgroup after another.
/// There only one workgroup is sure not to wait forever.
#[test]
fn equals_its_parts() {
    let medium = Sizes { n: 320, attention: [2, 256], ffn: 1280, qkv: 1024, input: 0 };
    let large = Sizes { n: 2560, attention: [34, 32], ffn: 576, qkv: 80, input: 0 };
    let cases = [
        SMALL,
        medium,
        large,
        Sizes { input: 64, ..SMALL },
        Sizes { input: 256, ..medium },
        Sizes { input: 192, ..large },
    ]
    .map(Case::new);
    let able = with_neighbours();
    let is_able = |gpu: &Gpu, _| able.iter().any(|able| std::ptr::eq(*able, gpu));
    for (gpu, [case, interleaved16, is_last, far]) in
        on_devices_where([cases.len(), 2, 2, 2], is_able)
    {
        let ways = [interleaved16, is_last].map(|way| way == 1);
        cases[case].check(gpu, ways, 1, [20, 5000][far]);
        if !gpu.facts().is_software() {
            cases[case].check(gpu, ways, 32, 1000);
        }
    }
}

/// The formats of GGUF's files, some of which mix them in a layer.
#[test]
fn equals_its_parts_in_other_formats() {
    let sizes = Sizes { n: 512, attention: [2, 128], ffn: 768, qkv: 96, input: 256 };
    let q6_k = PackFormat::Int { bits: 6, group: 16, offset: false };
    let [int4, q4_k] = [PackFormat::INT4, PackFormat::Q4K].map(Formats::all);
    let mut all = vec![
        Formats { down: q6_k, qkv: vec![PackFormat::Q4K, PackFormat::Q4K, q6_k], ..q4_k },
        Formats { gate_up: q6_k, qkv: vec![PackFormat::INT8], ..int4.clone() },
        Formats {
            o: PackFormat::INT8,
            qkv: vec![PackFormat::INT4, q6_k, PackFormat::INT4],
            ..int4
        },
    ];
    let others = |format: &PackFormat| {
        Linear::supports_q8(*format) && ![PackFormat::INT4, PackFormat::Iq4].contains(format)
    };
    all.extend(PackFormat::ALL.into_iter().filter(others).map(Formats::all));
    let sizes_of = |index| if index < 3 { sizes } else { Sizes { input: 0, ..sizes } };
    let cases: Vec<Case> =
        all.iter().enumerate().map(|(i, formats)| Case::of(sizes_of(i), formats)).collect();
    let able = with_neighbours();
    // Only weights of four bits are interleaved.
    let is_able = |gpu: &Gpu, [case, interleaved16]: [usize; 2]| {
        let can_interleave = [all[case].o, all[case].down]
            .map(|format| matches!(format, PackFormat::Q4K | PackFormat::Int { bits: 4, .. }));
        able.iter().any(|able| std::ptr::eq(*able, gpu))
            && (interleaved16 == 0 || can_interleave == [true; 2])
    };
    for (gpu, [case, interleaved16]) in on_devices_where([cases.len(), 2], is_able) {
        cases[case].check(gpu, [interleaved16 == 1, false], 1, 20);
        if !gpu.facts().is_software() {
            cases[case].check(gpu, [interleaved16 == 1, false], 32, 20);
        }
    }
}

/// Layers with such rows have kernels of their own.
#[test]
fn rows_shorter_than_a_pair_of_groups_are_not_for_it() {
    for gpu in with_neighbours() {
        for sizes in [
            Sizes { n: 32, ..SMALL },
            Sizes { attention: [1, 32], ..SMALL },
            Sizes { ffn: 32, ..SMALL },
        ] {
            assert!(!Case::new(sizes).kernel(false).can_run(gpu.target(), gpu.facts()));
        }
        assert!(Case::new(SMALL).kernel(false).can_run(gpu.target(), gpu.facts()));
    }
}

/// One workgroup of a kernel that expects more, so that it waits in vain.
struct Alone(PersistentLayer);

impl Kernel for Alone {
    fn source(&self, target: &KernelTarget) -> KernelSource {
        self.0.source(target)
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Fixed(1); 3])
    }
}

#[test]
fn waiting_in_vain_ends_and_is_reported() {
    for gpu in with_neighbours() {
        let case = Case::new(SMALL);
        let kernel = PersistentLayer { workgroups: 2, ..case.kernel(false) };
        let set = kernel.set_words;
        let parts = Parts::new(gpu, &case.split, 20);
        assert_eq!(case.run(gpu, &Alone(kernel), [false; 2], set, &parts).fault, 1);
    }
}
