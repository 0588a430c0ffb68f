//! Kernels of a mixture of experts against their twins.

use gemma4_wgpu::{
    cpu::{CpuMatrix, ops},
    gpu::{
        Gpu, GpuBuffer, StepSize,
        kernels::{
            AddExpertsRmsNorm, ExpertInputs, ExpertProduct, ExpertsMatmul, ExpertsMatvec, Kernel,
            Pairs, Route, SortExperts, stride,
        },
        tile,
    },
    model::config::Experts,
    quant::PackFormat,
};

use crate::{combinations::on_devices, epilogue::check_forms, harness::*, weights::weights};

const EPS: f32 = 1e-6;

fn sizes(count: usize, top_k: usize) -> Experts {
    Experts { count, top_k, intermediate_size: 1 }
}

/// Each row's experts: random ones, all of them different.
fn choose(rows: usize, experts: Experts, seed: u64) -> Vec<u32> {
    let scores = random(rows * experts.count, seed);
    ops::route(&scores, &vec![1.0; experts.count], experts.top_k).0
}

#[test]
fn inputs_of_experts_and_router() {
    let shapes = [(1, 1), (3, 7), (2, 257), (1, 2816), (2, 1030)];
    for (gpu, [shape]) in on_devices([shapes.len()]) {
        let (rows, n) = shapes[shape];
        let x: Vec<f32> = random(rows * n, 1).iter().map(|x| 30.0 * x).collect();
        let (pre, scale) = (random(n, 2), random(n, 3));
        let (mut experts, mut routed) = (vec![0.0; rows * n], vec![0.0; rows * n]);
        ops::expert_inputs(&x, &pre, &scale, EPS, &mut experts, &mut routed);
        let [found_experts, found_routed] = [(); 2].map(|()| zeros(gpu, rows * stride(n)));
        let buffers = [
            ("x", &upload_rows(gpu, &x, n)),
            ("pre_norm", &upload_rows(gpu, &pre, n)),
            ("router_scale", &upload_rows(gpu, &scale, n)),
            ("experts", &found_experts),
            ("routed", &found_routed),
        ];
        run(gpu, &ExpertInputs { n, eps: EPS }, &buffers, rows, 0);
        for (name, found, expected) in
            [("experts", &found_experts, &experts), ("routed", &found_routed, &routed)]
        {
            assert_close(name, gpu, &download_rows(gpu, found, rows, n), expected, 1e-5);
        }
    }
}

#[test]
fn the_router_chooses_and_weighs() {
    let cases = [(1, sizes(1, 1)), (3, sizes(8, 2)), (5, sizes(128, 8)), (2, sizes(300, 64))];
    for (gpu, [case]) in on_devices([cases.len()]) {
        let (rows, experts) = cases[case];
        let n = experts.count;
        // Rounded, so that some are equal.
        let logits: Vec<f32> =
            random(rows * n, 4).iter().map(|x| (40.0 * x).round() / 10.0).collect();
        let scales = random(n, 5);
        let (chosen, factors) = ops::route(&logits, &scales, experts.top_k);
        let [found, found_factors] = [(); 2].map(|()| zeros(gpu, rows * experts.top_k));
        let buffers = [
            ("logits", &upload_rows(gpu, &logits, n)),
            ("per_expert_scale", &upload(gpu, &scales)),
            ("chosen", &found),
            ("weights", &found_factors),
        ];
        run(gpu, &Route(experts), &buffers, rows, 0);
        assert_eq!(download::<u32>(gpu, &found, chosen.len()), chosen, "{experts:?}");
        let found: Vec<f32> = download(gpu, &found_factors, factors.len());
        assert_close("weights of experts", gpu, &found, &factors, 1e-5);
    }
}

/// The step's uniform.
fn step(gpu: &Gpu, rows: usize) -> GpuBuffer {
    gpu.uniform("step", [rows as u32, 0, 0, 0]).expect("a uniform")
}

/// Pairs and tiles of these choices, sorted by the device.
fn sort(gpu: &Gpu, chosen: &[u32], experts: Experts, tile: usize) -> [GpuBuffer; 2] {
    let rows = chosen.len() / experts.top_k;
    let kernel = SortExperts { experts, tile };
    let tiles = upload(gpu, &vec![7u32; 4 * kernel.most_tiles(rows)]);
    let pairs = zeros(gpu, chosen.len());
    let buffers = [
        ("chosen", &upload(gpu, chosen)),
        ("pairs", &pairs),
        ("tiles", &tiles),
        ("step", &step(gpu, rows)),
    ];
    run(gpu, &kernel, &buffers, rows, 0);
    [pairs, tiles]
}

#[test]
fn pairs_are_sorted_in_tiles_of_one_expert() {
    let cases = [
        (1, sizes(1, 1), 4),
        (9, sizes(5, 2), 4),
        (40, sizes(3, 3), 32),
        (70, sizes(128, 8), 4),
        (130, sizes(600, 8), 32),
    ];
    for (gpu, [case]) in on_devices([cases.len()]) {
        let (rows, experts, tile) = cases[case];
        let chosen = choose(rows, experts, 6);
        let [pairs, tiles] = sort(gpu, &chosen, experts, tile);
        let pairs: Vec<u32> = download(gpu, &pairs, chosen.len());
        let most = SortExperts { experts, tile }.most_tiles(rows);
        let tiles: Vec<[u32; 4]> = download(gpu, &tiles, most);
        let mut sorted = pairs.clone();
        sorted.sort();
        assert_eq!(sorted, (0..chosen.len() as u32).collect::<Vec<_>>());
        let mut next = 0;
        for [expert, first, count, _] in tiles {
            assert!(count as usize <= tile && (count == 0 || first == next), "{first} {count}");
            let own = &pairs[if count == 0 { 0 } else { first as usize }..][..count as usize];
            assert!(own.iter().all(|pair| chosen[*pair as usize] == expert));
            next += count;
        }
        assert_eq!(next as usize, chosen.len(), "{experts:?}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Single,
    Tiles,
    Matmul,
}

/// Products of pairs with experts whose matrices are in two parts.
fn check_product(
    gpu: &Gpu,
    way: Way,
    format: PackFormat,
    (features, cols, gated): (usize, usize, bool),
    interleave: bool,
) {
    let experts = sizes(5, 2);
    let rows = if let Way::Matmul = way { 50 } else { 7 };
    let own_rows = if gated { 2 * features } else { features };
    let matrix = weights(format, experts.count * own_rows, cols, 8);
    let chosen = choose(rows, experts, 9);
    let share = if gated { experts.top_k } else { 1 };
    let x = random(chosen.len() / share * cols, 10);
    let mut expected = vec![0.0; chosen.len() * own_rows];
    ops::experts_matmul(&matrix, own_rows, &x, share, &chosen, &mut expected);
    if gated {
        let mut hidden = vec![0.0; chosen.len() * features];
        ops::gelu_mul_pairs(&expected, features, &mut hidden);
        expected = hidden;
    }
    let tile_size = match way {
        Way::Single => 1,
        Way::Tiles => ExpertsMatvec::TILE,
        Way::Matmul => ExpertsMatmul::TILE,
    };
    let [pairs, tiles] = sort(gpu, &chosen, experts, tile_size);
    let (x, y) = (upload_rows(gpu, &x, cols), zeros(gpu, chosen.len() * stride(features)));
    let chosen_buffer = upload(gpu, &chosen);
    for (first, bound) in [(0, 2), (2, 3)] {
        let [data, scales] =
            part(gpu, &matrix, first * own_rows..(first + bound) * own_rows, interleave);
        let product = ExpertProduct {
            experts,
            format,
            bound,
            first,
            features,
            cols,
            gated,
            share,
            interleaved16: interleave,
        };
        let kernel: Box<dyn Kernel> = match way {
            Way::Single => Box::new(ExpertsMatvec { product, pairs: Pairs::Single }),
            Way::Tiles => Box::new(ExpertsMatvec { product, pairs: Pairs::Tiles(tile_size) }),
            Way::Matmul => Box::new(ExpertsMatmul(product)),
        };
        let mut buffers = vec![("data", &data), ("scales", &scales), ("x", &x), ("y", &y)];
        match way {
            Way::Single => buffers.push(("chosen", &chosen_buffer)),
            _ => buffers.extend([("tiles", &tiles), ("pairs", &pairs)]),
        }
        run(gpu, &*kernel, &buffers, rows, 0);
    }
    let what = format!("{way:?} {format} {features}x{cols} gated {gated} {interleave}");
    let found = download_rows(gpu, &y, chosen.len(), features);
    let is_f16 = matches!(way, Way::Matmul) && gpu.variant().f16 && format.group().is_some();
    assert_close(&what, gpu, &found, &expected, if is_f16 { 3e-3 } else { 2e-5 });
}

/// Data and scales of some rows.
fn part(
    gpu: &Gpu,
    matrix: &CpuMatrix,
    rows: std::ops::Range<usize>,
    interleave: bool,
) -> [GpuBuffer; 2] {
    let packed = matrix.packed();
    let (data_words, scale_words) =
        (packed.format.data_words(packed.cols), packed.format.scale_words(packed.cols));
    let data = &packed.data[rows.start * data_words..rows.end * data_words];
    let scales = &packed.scales[rows.start * scale_words..rows.end * scale_words];
    match interleave {
        true => [
            upload(gpu, &tile(data, data_words, 4)),
            upload(gpu, &tile(scales, scale_words, packed.format.scale_unit())),
        ],
        // A binding cannot be empty.
        false => [upload(gpu, data), upload(gpu, &[scales, &[0; 4]].concat())],
    }
}

#[test]
fn products_with_the_chosen_experts() {
    let shapes = [(22, 36, true), (80, 70, false), (6, 2100, true)];
    let ways = [Way::Single, Way::Tiles, Way::Matmul];
    let formats = PackFormat::ALL;
    for (gpu, [way, format, shape]) in on_devices([ways.len(), formats.len(), shapes.len()]) {
        let (format, shape) = (formats[format], shapes[shape]);
        check_product(gpu, ways[way], format, shape, false);
    }
    // Interleaved, as for cooperative matrices.
    let offset = PackFormat::Int { bits: 4, group: 64, offset: true };
    let nibbles = [PackFormat::INT4, offset, PackFormat::Q4K, PackFormat::Iq4];
    for (gpu, [way, format]) in on_devices([ways.len(), nibbles.len()]) {
        check_product(gpu, ways[way], nibbles[format], (48, 288, true), true);
    }
}

#[test]
fn the_end_of_a_layer_with_experts() {
    let shapes = [(1, 5, 1, 1), (3, 36, 2, 1), (2, 260, 8, 3), (1, 2816, 8, 1)];
    for (gpu, [shape]) in on_devices([shapes.len()]) {
        let (rows, n, top_k, parts) = shapes[shape];
        let (x, scalar) = (random(rows * n, 11), 0.7f32);
        let branches: Vec<Vec<f32>> = (0..parts).map(|p| random(rows * n, 12 + p as u64)).collect();
        let (results, factors) = (random(rows * top_k * n, 20), random(rows * top_k, 21));
        let norms = [22, 23, 24].map(|seed| random(n, seed));
        let next = random(n, 25);
        let mut branch = vec![0.0; rows * n];
        for part in &branches {
            branch.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
        }
        let (mut sum, mut new_x) = (vec![0.0; rows * n], x.clone());
        ops::sum_experts(&factors, &results, n, &mut sum);
        ops::join_experts(&mut branch, &mut sum, &norms[0], &norms[1], EPS);
        let mut expected = vec![0.0; rows * n];
        ops::add_rms_norm(&mut new_x, &branch, &norms[2], scalar, &next, EPS, &mut expected);
        let part_stride = rows * stride(n);
        let kernel = |epilogue| {
            let kernel = AddExpertsRmsNorm { n, eps: EPS, parts, part_stride, top_k, epilogue };
            Some(Box::new(kernel) as Box<dyn Kernel>)
        };
        let mut packed = Vec::new();
        for norm in &norms {
            packed.extend_from_slice(norm);
            packed.resize(packed.len().next_multiple_of(AddExpertsRmsNorm::norm_stride(n)), 0.0);
        }
        packed.extend([scalar, 0.0, 0.0, 0.0]);
        let own = || {
            vec![
                ("x", upload_rows(gpu, &x, n)),
                ("branch", upload_rows(gpu, &branches.concat(), n)),
                ("results", upload_rows(gpu, &results, n)),
                ("weights", upload(gpu, &factors)),
                ("norms", upload(gpu, &packed)),
                ("next_weight", upload_rows(gpu, &next, n)),
            ]
        };
        let step = StepSize { rows, ..Default::default() };
        check_forms(gpu, "add_experts_rms_norm", &kernel, &own, step, (&expected, n), 2e-5);
    }
}
