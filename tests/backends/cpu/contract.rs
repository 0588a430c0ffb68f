//! The CPU backend fulfils the contract of [`Backend`].
//! A row does not depend on the other rows. So its logits are identical however tokens are divided.

use crate::common::{cpu, random_model::RandomModel};
use crate::{common, contract_tests};
use gemma4_wgpu::{
    Error,
    backend::Backend,
    cpu::CpuBackend,
    model::weights::{self, LoadOptions},
};

const EXACT: f32 = 0.0;

contract_tests!(EXACT, cpu, "cpu");

/// Per-layer embeddings, and layers with KV sharing.
mod effective {
    use super::*;

    contract_tests!(EXACT, common::contract::effective(cpu), "cpu");
}

#[test]
fn progress_counts_every_byte() {
    let (model, mut bytes) = (RandomModel::small(), 0);
    let backend =
        pollster::block_on(CpuBackend::load(&model, &LoadOptions::default(), &mut |n| bytes += n))
            .unwrap();
    assert_eq!(bytes, weights::load_bytes(&model));
    // int4 and int8 with their scales need much less than half of f32's bytes.
    assert!(backend.info().weight_bytes < bytes / 2);
}

#[test]
fn a_context_beyond_memory_names_its_bytes() {
    let options = LoadOptions { context_length: 1 << 50, ..LoadOptions::default() };
    match cpu(&RandomModel::small(), &options) {
        Err(Error::Device(reason)) => {
            assert!(reason.contains("KV cache") && reason.contains("bytes"), "{reason}")
        }
        other => panic!("{:?}", other.err()),
    }
}
