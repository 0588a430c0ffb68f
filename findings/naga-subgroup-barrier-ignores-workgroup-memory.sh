#!/usr/bin/env bash
# Guess: subgroupBarrier() of naga orders a subgroup's accesses to workgroup memory everywhere,
#   as simdgroup_barrier(mem_flags::mem_threadgroup) does in Metal.
# Seen: its Metal text has that barrier. Its SPIR-V has OpControlBarrier with the semantics 0x88:
#   AcquireRelease and SubgroupMemory. WorkgroupMemory (0x100), which workgroupBarrier() has, is
#   missing.
#   So by Vulkan's memory model a subgroup that exchanges values through workgroup memory has a
#   data race, although the same shader is right in Metal.
#   Drivers may still keep the order: an exchange within one thread's aliasing accesses is kept.
# Versions: naga 30.0.1. Needs cargo.
# Output seen:
#   workgroupBarrier: scopes 2 2, semantics 0x108
#   subgroupBarrier: scopes 3 3, semantics 0x88
#   Metal: threadgroup_barrier mem_threadgroup
#   Metal: simdgroup_barrier mem_threadgroup
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
naga = { version = "=30.0.1", features = ["wgsl-in", "spv-out", "msl-out"] }
TOML
cat >"$scratch/src/main.rs" <<'RUST'
use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::collections::HashMap;

fn shader(barrier: &str) -> String {
    format!(
        "var<workgroup> held: array<u32, 64>;
        @group(0) @binding(0) var<storage, read_write> out: array<u32>;
        @compute @workgroup_size(64)
        fn main(@builtin(local_invocation_index) i: u32,
                @builtin(subgroup_invocation_id) lane: u32) {{
            held[i] = lane;
            {barrier}();
            out[i] = held[i ^ 1u];
        }}"
    )
}

fn main() {
    let mut metal = Vec::new();
    for barrier in ["workgroupBarrier", "subgroupBarrier"] {
        let module = naga::front::wgsl::parse_str(&shader(barrier)).unwrap();
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        let info = validator.validate(&module).unwrap();
        let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
        let words = naga::back::spv::write_vec(&module, &info, &options, None).unwrap();
        // OpConstant is 43, OpControlBarrier 224. The barrier after the array's zeros comes first.
        let (mut constants, mut found, mut at) = (HashMap::new(), Vec::new(), 5);
        while at < words.len() {
            match words[at] & 0xffff {
                43 => drop(constants.insert(words[at + 2], words[at + 3])),
                224 => found = (1..4).map(|i| constants[&words[at + i]]).collect(),
                _ => {}
            }
            at += (words[at] >> 16) as usize;
        }
        println!("{barrier}: scopes {} {}, semantics {:#x}", found[0], found[1], found[2]);
        let expected = if barrier == "subgroupBarrier" { [3, 3, 0x88] } else { [2, 2, 0x108] };
        assert_eq!(found, expected);
        let options = naga::back::msl::Options { lang_version: (2, 4), ..Default::default() };
        let (text, _) =
            naga::back::msl::write_string(&module, &info, &options, &Default::default()).unwrap();
        metal.push(text.lines().rfind(|line| line.contains("_barrier(")).unwrap().to_owned());
    }
    for (line, name) in metal.iter().zip(["threadgroup_barrier", "simdgroup_barrier"]) {
        assert!(line.contains(name) && line.contains("mem_threadgroup"), "{line}");
        println!("Metal: {name} mem_threadgroup");
    }
}
RUST
cargo run --quiet --manifest-path "$scratch/Cargo.toml"
