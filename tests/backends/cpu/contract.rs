//! The CPU backend fulfils the contract of [`Backend`].
//! On the exact path a row does not depend on the other rows. So its logits are identical however
//! tokens are divided.

use std::num::NonZeroUsize;

use crate::common::{cpu, random_model::RandomModel};
use crate::{common, contract_tests};
use gemma4_wgpu::{
    Error,
    backend::Backend,
    cpu::{CpuBackend, CpuOptions},
    model::weights::{self, LoadOptions},
};

const EXACT: f32 = 0.0;

contract_tests!(EXACT, cpu, "cpu");

/// Per-layer embeddings, and layers with KV sharing.
mod effective {
    use super::*;

    contract_tests!(EXACT, common::contract::effective(cpu), "cpu");
}

/// A mixture of experts.
mod experts {
    use super::*;

    contract_tests!(EXACT, common::contract::experts(cpu), "cpu");
}

/// The fast path, with each set of instructions of this processor.
mod fast {
    use super::*;
    use crate::common::fast_cpu;
    use gemma4_wgpu::cpu::Instructions;

    /// The cores share the keys of one token in a long context, but not those of many tokens.
    /// So sums over keys have another order.
    const DIVIDED: f32 = 1e-4;

    contract_tests!(DIVIDED, fast_cpu(None), "cpu");

    mod effective {
        use super::*;

        contract_tests!(DIVIDED, common::contract::effective(fast_cpu(None)), "cpu");
    }

    mod experts {
        use super::*;

        contract_tests!(DIVIDED, common::contract::experts(fast_cpu(None)), "cpu");
    }

    mod plain {
        use super::*;

        contract_tests!(DIVIDED, fast_cpu(Some(Instructions::Plain)), "cpu");
    }

    #[test]
    fn instructions_of_another_processor_are_an_error() {
        let available = Instructions::available();
        assert_eq!(available.last(), Some(&Instructions::Plain));
        for instructions in Instructions::ALL {
            let options = CpuOptions { instructions: Some(instructions), ..CpuOptions::default() };
            let (model, load) = (RandomModel::small(), LoadOptions::default());
            let mut progress = |_| ();
            let loaded = CpuBackend::load_with(&model, &load, &options, &mut progress);
            match pollster::block_on(loaded) {
                Ok(backend) => {
                    assert!(available.contains(&instructions));
                    let device = backend.info().device;
                    assert!(device.ends_with(instructions.name()), "{device}");
                }
                Err(error) => {
                    assert!(!available.contains(&instructions));
                    let expected = format!("this processor has no {}", instructions.name());
                    assert_eq!(error.to_string(), expected);
                }
            }
        }
    }
}

/// The results do not depend on the number of threads.
#[test]
fn threads_are_chosen() {
    let (model, load) = (RandomModel::small(), LoadOptions::default());
    let with = |threads: usize| {
        let options = CpuOptions { threads: NonZeroUsize::new(threads), ..CpuOptions::default() };
        let mut progress = |_| ();
        pollster::block_on(CpuBackend::load_with(&model, &load, &options, &mut progress))
    };
    let most = std::thread::available_parallelism().unwrap().get();
    let logits = |threads| {
        let mut backend = with(threads).unwrap();
        let expected = format!("{threads} CPU threads, ");
        assert!(backend.info().device.starts_with(&expected), "{}", backend.info().device);
        let sequence = backend.open_sequence().unwrap();
        common::all_logits(&mut backend, sequence, &[1, 2, 3, 4, 5, 6, 7], &[6, 1])
    };
    assert_eq!(logits(1), logits(most));
    let error = with(most + 1).err().unwrap().to_string();
    assert_eq!(error, format!("{} threads; this process may use {most}", most + 1));
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
