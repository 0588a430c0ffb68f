//! Small random models with float32 logits of an independent program.

use std::{
    fs,
    path::{Path, PathBuf},
};

use gemma4_wgpu::{
    backend::Backend,
    checkpoint::Checkpoint,
    model::{kv::CacheType, weights::LoadOptions},
    quant::Quantize,
};
use safetensors::{Dtype, SafeTensors};

use super::{Make, all_logits};
use gemma4_wgpu::sampling::argmax;

/// The fraction of positions where the largest logit must be that of the golden.
const MIN_SAME_ARGMAX: f32 = 0.99;

/// A directory of `tests`.
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Names of the directories in `root`, sorted.
pub fn cases(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<String> =
        directories.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A prompt and its logits.
struct Golden {
    tokens: Vec<u32>,
    /// `[tokens, vocab]`
    logits: Vec<f32>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str, dtype: Dtype| -> Vec<[u8; 4]> {
            let tensor = file.tensor(name).unwrap();
            assert_eq!(tensor.dtype(), dtype, "{name} of {}", path.display());
            tensor.data().as_chunks().0.to_vec()
        };
        Golden {
            tokens: words("tokens", Dtype::I32).into_iter().map(u32::from_le_bytes).collect(),
            logits: words("logits", Dtype::F32).into_iter().map(f32::from_le_bytes).collect(),
        }
    }

    /// Runs the prompt in chunks and compares the logits of every position.
    fn check(&self, backend: &mut dyn Backend, chunks: &[usize], tolerance: f32, what: &str) {
        let vocab = backend.config().vocab_size;
        let sequence = backend.open_sequence().unwrap();
        let logits = all_logits(backend, sequence, &self.tokens, chunks);
        backend.close_sequence(sequence);

        assert_eq!(logits.len(), self.logits.len(), "{what}");
        let mut same = 0;
        let rows = logits.chunks_exact(vocab).zip(self.logits.chunks_exact(vocab));
        for (position, (row, golden)) in rows.enumerate() {
            for (id, (logit, golden)) in row.iter().zip(golden).enumerate() {
                let close = (logit - golden).abs() <= tolerance;
                assert!(close, "{what}, position {position}, id {id}: {logit}, golden {golden}");
            }
            same += (argmax(row) == argmax(golden)) as usize;
        }
        let share = same as f32 / self.tokens.len() as f32;
        assert!(
            share >= MIN_SAME_ARGMAX,
            "{what}: the largest logit is the same at {share} of the positions"
        );
    }
}

/// Runs the prompt of `golden.safetensors` in `case` on the unquantized checkpoint with an f32
/// cache.
/// It is run as one prefill, in chunks, and token by token past the window.
pub fn check(case: &Path, checkpoint: &Path, tolerance: f32, make: Make) {
    let golden = Golden::read(&case.join("golden.safetensors"));
    let checkpoint = Checkpoint::open(checkpoint).unwrap();
    let options = LoadOptions {
        quantize: Quantize::None,
        context_length: golden.tokens.len(),
        max_sequences: 1,
        cache_type: CacheType::F32,
    };
    let mut backend = make(&checkpoint, &options).unwrap();
    for (chunks, what) in
        [(&[usize::MAX][..], "prefill"), (&[3, 1, 7, 5, 2], "chunks"), (&[1], "token by token")]
    {
        golden.check(&mut *backend, chunks, tolerance, &format!("{}, {what}", case.display()));
    }
}

/// A test for every case of tests/goldens.
/// `tools/goldens/generate.py` made the cases with Hugging Face transformers.
/// Use: `golden_tests!(tolerance, make)`.
#[macro_export]
macro_rules! golden_tests {
    ($tolerance:expr, $make:expr) => {
        $crate::golden_tests!(dense $tolerance, $make);
        $crate::golden_tests!(cases $tolerance, $make, gemma4_experts, gemma4_many_experts);
    };
    // Without mixtures of experts.
    (dense $tolerance:expr, $make:expr) => {
        $crate::golden_tests! {
            cases $tolerance, $make,
            gemma3_linear_rope, gemma3_published, gemma4_31b_heads, gemma4_dense_gqa,
            gemma4_double_wide, gemma4_k_eq_v, gemma4_odd_sizes, gemma4_per_layer,
            gemma4_published, gemma4_short_window, gemma4_softcap_untied, gemma4_unified,
            gemma4_unified_flat
        }
    };
    (cases $tolerance:expr, $make:expr, $($case:ident),*) => {
        $(
            #[test]
            fn $case() {
                use $crate::common::goldens::{check, directory};
                let case = directory("goldens").join(stringify!($case).replace('_', "-"));
                check(&case, &case, $tolerance, &$make);
            }
        )*
    };
}

/// The number of directories in tests/goldens. `golden_tests!` has a test of each.
pub const CASES: usize = 15;
