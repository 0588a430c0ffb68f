#!/usr/bin/env bash
# Guess: a cooperative matrix belongs to a subgroup, so naga accepts its operations in control flow
#   that is the same for all invocations of a subgroup.
# Seen: naga refuses them where the condition depends on subgroup_id: it wants control flow that is
#   the same for the whole workgroup. So subgroups cannot loop over different numbers of tiles.
#   The scope of the operations in the SPIR-V that naga writes is Subgroup (3).
# Versions: naga 30.0.1. Needs cargo.
# Output seen:
#   the same for the workgroup: valid, matrices of scope 3
#   the same for each subgroup: Required uniformity of control flow for
#     UniformityRequirements(COOP_OPS)
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/src"
cat >"$scratch/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
naga = { version = "=30.0.1", features = ["wgsl-in", "spv-out"] }
TOML
cat >"$scratch/src/main.rs" <<'RUST'
use naga::valid::{Capabilities, ValidationFlags, Validator};

fn shader(condition: &str) -> String {
    format!(
        "enable f16;
        enable wgpu_cooperative_matrix;
        @group(0) @binding(0) var<storage, read> x: array<f16>;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64)
        fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) subgroup: u32) {{
            if {condition} < 1u {{
                let a = coopLoadT<coop_mat16x16<f16, A>>(&x[0], 16u);
                let b = coopLoad<coop_mat16x16<f16, B>>(&x[256], 16u);
                let c = coopMultiplyAdd(a, b, coop_mat16x16<f32, C>());
                coopStoreT(c, &y[0], 16u);
            }}
        }}"
    )
}

fn main() {
    let validate = |condition: &str| {
        let module = naga::front::wgsl::parse_str(&shader(condition)).unwrap();
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        let checked = validator.validate(&module);
        let checked = checked.map_err(|error| format!("{:?}", error.into_inner()));
        checked.map(|info| {
            let options = naga::back::spv::Options { lang_version: (1, 4), ..Default::default() };
            naga::back::spv::write_vec(&module, &info, &options, None).unwrap()
        })
    };
    let words = validate("group.x").expect("valid");
    // OpConstant is 43, OpTypeCooperativeMatrixKHR 4456: result, component type, scope, ...
    let (mut constants, mut scope, mut at) = (std::collections::HashMap::new(), None, 5);
    while at < words.len() {
        match words[at] & 0xffff {
            43 => drop(constants.insert(words[at + 2], words[at + 3])),
            4456 => scope = Some(constants[&words[at + 3]]),
            _ => {}
        }
        at += (words[at] >> 16) as usize;
    }
    assert_eq!(scope, Some(3));
    println!("the same for the workgroup: valid, matrices of scope 3");
    let error = validate("subgroup").expect_err("refused");
    assert!(error.contains("NonUniformControlFlow") && error.contains("COOP_OPS"), "{error}");
    println!(
        "the same for each subgroup: \
         Required uniformity of control flow for UniformityRequirements(COOP_OPS)"
    );
}
RUST
cargo run --quiet --manifest-path "$scratch/Cargo.toml"
