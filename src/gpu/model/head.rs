//! The output head: final hidden states to logits, and logits to tokens.

use crate::{
    error::Result,
    gpu::{
        device::dispatch::Dispatch,
        kernels::{Argmax, ArgmaxParts, GatherRows, Sample, TopKParts},
        model::{
            outputs::LogitsUse,
            recorder::{OutputView, Recorder},
        },
        weights::matrix::GpuMatrix,
    },
    model::config::ModelConfig,
};

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
        rec.run(&GatherRows { cols: config.hidden_size }, &[&s.normed, &s.outputs, &s.gathered])?;
        let view = OutputView { y: &s.logits, stride: vocab, offset: 0 };
        rec.single(lm_head, &s.gathered, view, config.final_logit_softcap)?;
        let logits = std::mem::take(&mut rec.steps);

        rec.run(&ArgmaxParts { n: vocab }, &[&s.logits, &s.argmax_parts])?;
        rec.run(&Argmax { n: vocab }, &[&s.argmax_parts, &s.outputs, &s.rows, &s.sampled])?;
        let argmax = std::mem::take(&mut rec.steps);

        rec.run(&TopKParts { n: vocab }, &[&s.logits, &s.draws, &s.sample_parts])?;
        let candidates = [&s.sample_parts, &s.draws, &s.outputs, &s.rows, &s.sampled];
        rec.run(&Sample { n: vocab }, &candidates)?;
        Ok(OutputHead { logits, argmax, sample: std::mem::take(&mut rec.steps) })
    }

    /// What chooses tokens after the logits.
    pub fn choice(&self, usage: &LogitsUse) -> &[Dispatch] {
        match usage {
            LogitsUse::Logits => &[],
            LogitsUse::Greedy => &self.argmax,
            LogitsUse::Sample(_) => &self.sample,
        }
    }
}
