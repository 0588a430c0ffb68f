//! Every kernel in every variant passes naga's validation and translates to SPIR-V, MSL and HLSL.
//! It also respects the limits that WebGPU guarantees.
//! So a kernel that only fails on a Mac fails here.

use crate::catalogue;
use gemma4_wgpu::{
    gpu::{Access, KernelSource, KernelTarget, kernels::Linear},
    quant::PackFormat,
};
use naga::{
    back::{hlsl, msl, spv},
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

/// Workgroup memory and storage buffers that every WebGPU device has.
const WEBGPU_WORKGROUP_BYTES: u32 = 16384;
const WEBGPU_STORAGE_BUFFERS: usize = 8;

fn parse(source: &KernelSource) -> (naga::Module, ModuleInfo) {
    let module = naga::front::wgsl::parse_str(&source.wgsl)
        .unwrap_or_else(|error| panic!("{}: {}", source.name, error.emit_to_string(&source.wgsl)));
    let capabilities = Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SUBGROUP
        | Capabilities::SUBGROUP_BARRIER
        | Capabilities::COOPERATIVE_MATRIX
        | Capabilities::MEMORY_DECORATION_COHERENT;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{}: {}", source.name, error.emit_to_string(&source.wgsl)));
    (module, info)
}

fn bounds_checks(target: &KernelTarget) -> BoundsCheckPolicies {
    let policy = if target.variant.checks {
        BoundsCheckPolicy::Restrict
    } else {
        BoundsCheckPolicy::Unchecked
    };
    BoundsCheckPolicies { index: policy, buffer: policy, image_load: policy, binding_array: policy }
}

fn to_spirv(
    source: &KernelSource,
    target: &KernelTarget,
    module: &naga::Module,
    info: &ModuleInfo,
) -> usize {
    let options = spv::Options {
        lang_version: (1, 4),
        bounds_check_policies: bounds_checks(target),
        force_loop_bounding: target.variant.checks,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".into(),
    };
    spv::write_vec(module, info, &options, Some(&pipeline))
        .unwrap_or_else(|error| panic!("{} to SPIR-V: {error}", source.name))
        .len()
}

fn to_msl(
    source: &KernelSource,
    target: &KernelTarget,
    module: &naga::Module,
    info: &ModuleInfo,
) -> String {
    let resources = source.bindings.iter().enumerate().map(|(index, binding)| {
        let target = msl::BindTarget {
            buffer: Some(index as u8),
            mutable: binding.access == Access::ReadWrite,
            ..Default::default()
        };
        (naga::ResourceBinding { group: 0, binding: index as u32 }, target)
    });
    let entry = msl::EntryPointResources {
        resources: resources.collect(),
        sizes_buffer: Some(source.bindings.len() as u8),
        ..Default::default()
    };
    let options = msl::Options {
        lang_version: (3, 1),
        per_entry_point_map: [("main".to_string(), entry)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: bounds_checks(target),
        force_loop_bounding: target.variant.checks,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions {
        entry_point: Some((naga::ShaderStage::Compute, "main".into())),
        ..Default::default()
    };
    let (text, info) = msl::write_string(module, info, &options, &pipeline)
        .unwrap_or_else(|error| panic!("{} to MSL: {error}", source.name));
    for name in info.entry_point_names {
        name.unwrap_or_else(|error| panic!("{} to MSL: {error}", source.name));
    }
    text
}

fn to_hlsl(source: &KernelSource, module: &naga::Module, info: &ModuleInfo) -> String {
    let options = hlsl::Options { shader_model: hlsl::ShaderModel::V6_2, ..Default::default() };
    let pipeline =
        hlsl::PipelineOptions { entry_point: Some((naga::ShaderStage::Compute, "main".into())) };
    let mut text = String::new();
    let reflection = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|error| panic!("{} to HLSL: {error}", source.name));
    for name in reflection.entry_point_names {
        name.unwrap_or_else(|error| panic!("{} to HLSL: {error}", source.name));
    }
    text
}

fn workgroup_bytes(module: &naga::Module) -> u32 {
    let variables = module.global_variables.iter().map(|(_, variable)| variable);
    let of_workgroup = variables.filter(|variable| variable.space == naga::AddressSpace::WorkGroup);
    of_workgroup.map(|variable| module.types[variable.ty].inner.size(module.to_ctx())).sum()
}

#[test]
fn every_variant_translates() {
    let mut translated = 0;
    for subgroup in [4, 32] {
        for target in catalogue::targets(subgroup, true) {
            for kernel in catalogue::kernels(&target) {
                let source = kernel.source(&target);
                let (module, info) = parse(&source);
                assert!(to_spirv(&source, &target, &module, &info) > 100, "{}", source.name);
                assert!(
                    to_msl(&source, &target, &module, &info).contains("kernel void main"),
                    "{}",
                    source.name
                );
                assert!(to_hlsl(&source, &module, &info).contains("numthreads"), "{}", source.name);
                translated += 1;
            }
        }
    }
    assert!(translated > 900, "{translated}");
}

/// Metal multiplies matrices of another size, and naga has none for DirectX.
/// So these are for Vulkan alone.
#[test]
fn cooperative_matrices_translate_to_spirv() {
    let (target, kernels) = catalogue::coop();
    for kernel in kernels {
        let source = kernel.source(&target);
        let (module, info) = parse(&source);
        assert!(to_spirv(&source, &target, &module, &info) > 100, "{}", source.name);
        assert!(workgroup_bytes(&module) <= 48 << 10, "{}", source.name);
    }
}

/// The elements that cooperative matrices are loaded from and stored to.
fn cooperative_elements(module: &naga::Module, info: &ModuleInfo) -> Vec<naga::TypeInner> {
    let mut found = Vec::new();
    let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
    let entries = module
        .entry_points
        .iter()
        .enumerate()
        .map(|(at, entry)| (&entry.function, info.get_entry_point(at)));
    for (function, info) in functions.chain(entries) {
        let mut pointers: Vec<_> = Vec::new();
        for (_, expression) in function.expressions.iter() {
            if let naga::Expression::CooperativeLoad { data, .. } = expression {
                pointers.push(data.pointer);
            }
        }
        for statement in statements(&function.body) {
            if let naga::Statement::CooperativeStore { data, .. } = statement {
                pointers.push(data.pointer);
            }
        }
        found.extend(pointers.into_iter().map(|pointer| {
            match info[pointer].ty.inner_with(&module.types) {
                naga::TypeInner::Pointer { base, .. } => module.types[*base].inner.clone(),
                naga::TypeInner::ValuePointer { size: None, scalar, .. } => {
                    naga::TypeInner::Scalar(*scalar)
                }
                other => panic!("{other:?} is no element of an array"),
            }
        }));
    }
    found
}

/// The statements of a block and of its nested blocks.
fn statements(block: &naga::Block) -> Vec<&naga::Statement> {
    let mut all = Vec::new();
    for statement in block {
        all.push(statement);
        match statement {
            naga::Statement::Block(block) => all.extend(statements(block)),
            naga::Statement::If { accept, reject, .. } => {
                all.extend(statements(accept));
                all.extend(statements(reject));
            }
            naga::Statement::Loop { body, continuing, .. } => {
                all.extend(statements(body));
                all.extend(statements(continuing));
            }
            _ => {}
        }
    }
    all
}

/// naga also loads a matrix from a pointer to vectors.
/// But its Metal code then has a call without such an overload. So the elements must be scalars.
#[test]
fn cooperative_matrices_of_8_translate_to_msl() {
    for checks in [false, true] {
        let (target, kernels) = catalogue::coop8(checks);
        let formats = PackFormat::ALL.iter().filter(|format| Linear::supports_q8(**format)).count();
        assert_eq!(kernels.len(), 3 * formats + 4);
        for kernel in kernels {
            let source = kernel.source(&target);
            assert!(source.name.ends_with("_coop8"));
            let (module, info) = parse(&source);
            let msl = to_msl(&source, &target, &module, &info);
            for wanted in [
                "kernel void main",
                "simdgroup_multiply_accumulate(d,a,b,c)",
                "simdgroup_store(",
                "half inner[",
            ] {
                assert!(msl.contains(wanted), "{wanted} in {msl}");
            }
            let types = "metal::simdgroup_float8x8 NagaCooperativeMultiplyAdd(\
                         const thread metal::simdgroup_half8x8& a, \
                         const thread metal::simdgroup_half8x8& b, \
                         const thread metal::simdgroup_float8x8& c)";
            assert!(msl.contains(types), "{msl}");
            let elements = cooperative_elements(&module, &info);
            assert!(
                elements.len() > 9
                    && elements.iter().all(|ty| matches!(ty, naga::TypeInner::Scalar(_))),
                "{elements:?}"
            );
            // Asahi Linux has such matrices in Vulkan too.
            assert!(to_spirv(&source, &target, &module, &info) > 100);
            // Apple's GPUs have 32 KiB. A workgroup with half of that lets two run on a core.
            let most = if source.name == "matmul_coop8" { 16 << 10 } else { 32 << 10 };
            assert!(
                workgroup_bytes(&module) <= most,
                "{}: {}",
                source.name,
                workgroup_bytes(&module)
            );
        }
    }
}

#[test]
fn every_kernel_fits_the_smallest_webgpu_device() {
    // Devices of this kind have no workgroups of 1024.
    for target in catalogue::targets(4, false) {
        for kernel in catalogue::kernels(&target) {
            let source = kernel.source(&target);
            let (module, _) = parse(&source);
            let bytes = workgroup_bytes(&module);
            assert!(
                bytes <= WEBGPU_WORKGROUP_BYTES,
                "{} takes {bytes} bytes of workgroup memory",
                source.name
            );
            assert!(source.bindings.len() <= WEBGPU_STORAGE_BUFFERS, "{}", source.name);
        }
    }
}

/// The parsed declarations are correct: number, name and access.
#[test]
fn bindings_are_those_of_the_wgsl() {
    for target in catalogue::targets(4, true) {
        for kernel in catalogue::kernels(&target) {
            let source = kernel.source(&target);
            let (module, _) = parse(&source);
            let mut found = vec![None; source.bindings.len()];
            for (_, variable) in module.global_variables.iter() {
                let Some(binding) = &variable.binding else { continue };
                let access = match variable.space {
                    naga::AddressSpace::Uniform => Access::Uniform,
                    naga::AddressSpace::Storage { access }
                        if access.contains(naga::StorageAccess::STORE) =>
                    {
                        Access::ReadWrite
                    }
                    _ => Access::Read,
                };
                found[binding.binding as usize] = Some((variable.name.as_deref(), access));
            }
            let named: Vec<_> = source
                .bindings
                .iter()
                .map(|binding| Some((Some(binding.name), binding.access)))
                .collect();
            assert_eq!(found, named, "{}", source.name);
        }
    }
}

/// Writes the kernels that browsers can run for the tests in web/tests, as no browser runs here.
#[test]
fn kernels_are_written_for_browsers() {
    let mut seen = std::collections::HashSet::new();
    let mut kept = Vec::new();
    for target in catalogue::targets(4, false).iter().filter(|target| !target.variant.checks) {
        for kernel in catalogue::kernels(target) {
            let source = kernel.source(target);
            if seen.insert(source.wgsl.clone()) {
                let bindings: Vec<String> =
                    source.bindings.iter().map(|binding| format!("{:?}", binding.access)).collect();
                kept.push(serde_json::json!({
                    "name": source.name,
                    "wgsl": source.wgsl,
                    "bindings": bindings,
                    "f16": source.wgsl.contains("enable f16;"),
                    "subgroups": source.wgsl.contains("subgroup_invocation_id"),
                }));
            }
        }
    }
    assert!(kept.len() > 200, "{}", kept.len());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser-kernels.json");
    std::fs::write(path, serde_json::to_vec(&kept).unwrap()).unwrap();
}
