//! The output head: final hidden states to logits, and logits to tokens.

use crate::error::Result;
use crate::gpu::device::dispatch::Dispatch;
use crate::gpu::kernels::{ActivationFormat, Argmax, ArgmaxParts, GatherRows, Sample, TopKParts};
use crate::gpu::model::outputs::LogitsUse;
use crate::gpu::model::recorder::{OutputView, Recorder};
use crate::gpu::weights::matrix::GpuMatrix;
use crate::model::config::ModelConfig;

/// Dispatches of the output head.
pub(in crate::gpu) struct OutputHead {
    pub logits: Vec<Dispatch>,
    argmax: Vec<Dispatch>,
    sample: Vec<Dispatch>,
}

impl OutputHead {
    /// Records the head of a model with this lm_head `[vocab, hidden]`.
    pub fn record(
        rec: &mut Recorder<'_>,
        config: &ModelConfig,
        lm_head: &GpuMatrix,
    ) -> Result<Self> {
        let (s, vocab) = (rec.workspace, config.vocab_size);
        let [outputs, rows] = [("outputs", &s.outputs), ("rows", &s.rows)];
        let [logits_in, sampled] = [("logits", &s.logits), ("sampled", &s.sampled)];
        let gathered = ("out", &s.gathered);
        let gather = GatherRows { cols: config.hidden_size };
        rec.run(&gather, &[("x", &s.normed), outputs, gathered])?;
        let view = OutputView { y: &s.logits, stride: vocab, offset: 0 };
        let lm_head = rec.plan(lm_head, view, config.final_logit_softcap);
        let hidden = rec.activations(&s.gathered, config.hidden_size, ActivationFormat::F32);
        rec.products(&[lm_head], hidden)?;
        let logits = std::mem::take(&mut rec.steps);

        let parts = ("parts", &s.argmax_parts);
        rec.run(&ArgmaxParts { n: vocab }, &[logits_in, parts])?;
        rec.run(&Argmax { n: vocab }, &[parts, outputs, rows, sampled])?;
        let argmax = std::mem::take(&mut rec.steps);

        let [parts, draws] = [("parts", &s.sample_parts), ("draws", &s.draws)];
        rec.run(&TopKParts { n: vocab }, &[logits_in, draws, parts])?;
        rec.run(&Sample { n: vocab }, &[parts, draws, outputs, rows, sampled])?;
        Ok(OutputHead { logits, argmax, sample: std::mem::take(&mut rec.steps) })
    }

    /// The dispatches that choose tokens from the logits.
    pub fn choice(&self, usage: &LogitsUse) -> &[Dispatch] {
        match usage {
            LogitsUse::Logits => &[],
            LogitsUse::Greedy => &self.argmax,
            LogitsUse::Sample(_) => &self.sample,
        }
    }
}
