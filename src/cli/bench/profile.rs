//! `bench --profile`: the times of a step's kernels as a table and as a trace.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;

use crate::backend::{Backend, KernelTime, SequenceStep, StepInput};
use crate::error::{Error, Result};
use crate::tune::workload::{Test, Work, prompt, random_tokens};

/// Times the kernels of one step of a test. It is a chunk of the prompt, one generated token of
/// every sequence, or the test's own step.
pub fn run(test: &Test, backend: &mut dyn Backend, seed: &mut u64) -> Result<Vec<KernelTime>> {
    test.in_sequences(backend, async |backend, sequences| {
        let count = match test.work {
            Work::Prompt(count) => count.min(backend.info().max_step_tokens),
            Work::Generate(_) => 1,
            Work::Step(count) => count,
        };
        let mut choice = test.choice(*seed)?;
        let mut inputs = Vec::new();
        for &sequence in sequences {
            prompt(backend, sequence, test.depth, seed).await?;
            inputs.push((sequence, random_tokens(backend, count, seed), choice.next()));
        }
        let step: Vec<SequenceStep<'_>> = inputs
            .iter()
            .map(|(sequence, tokens, output)| SequenceStep {
                sequence: *sequence,
                input: StepInput::Tokens(tokens),
                output: *output,
            })
            .collect();
        // The first run compiles the kernels.
        backend.profile(&step).await?;
        for &sequence in sequences {
            backend.truncate(sequence, test.depth)?;
        }
        backend.profile(&step).await
    })
}

/// A table of kernels by total time, the longest first.
pub fn table(test: &str, times: &[KernelTime]) -> String {
    let mut groups: BTreeMap<(&str, &str), (usize, u64, u64, u64)> = BTreeMap::new();
    for time in times {
        let group = groups.entry((time.name, &time.detail)).or_default();
        group.0 += 1;
        group.1 += time.duration;
        group.2 += time.weight_bytes;
        group.3 += time.multiplications;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (_, duration, ..))| std::cmp::Reverse(*duration));
    let busy: u64 = times.iter().map(|time| time.duration).sum();
    let span = times.last().map_or(0, |last| last.start + last.duration);
    let mut text = format!(
        "\n{test}: {} kernels, {:.3} ms busy of {:.3} ms\n\n\
         | kernel | calls | ms | µs each | GB/s | TFLOP/s |\n\
         |---|---:|---:|---:|---:|---:|\n",
        times.len(),
        busy as f64 / 1e6,
        span as f64 / 1e6,
    );
    for ((name, detail), (calls, duration, bytes, multiplications)) in groups {
        let rate = |amount: f64, digits: usize| match amount > 0.0 && duration > 0 {
            true => format!("{:.digits$}", amount / duration as f64),
            false => String::new(),
        };
        text += &format!(
            "| {name} {detail} | {calls} | {:.3} | {:.1} | {} | {} |\n",
            duration as f64 / 1e6,
            duration as f64 / 1e3 / calls as f64,
            rate(bytes as f64, 0),
            rate(2e-3 * multiplications as f64, 1),
        );
    }
    text
}

/// Writes the kernels of all tests as a Chrome trace (chrome://tracing, Perfetto), with a thread
/// for each test.
pub fn write_trace(path: &Path, profiles: &[(String, Vec<KernelTime>)]) -> Result<()> {
    let mut events = Vec::new();
    for (thread, (test, times)) in profiles.iter().enumerate() {
        events.push(json!({
            "ph": "M", "name": "thread_name", "pid": 1, "tid": thread, "args": { "name": test },
        }));
        events.extend(times.iter().map(|time| {
            json!({
                "ph": "X", "pid": 1, "tid": thread, "name": time.name, "cat": "kernel",
                "ts": time.start as f64 / 1e3, "dur": time.duration as f64 / 1e3,
                "args": { "detail": time.detail, "weight_bytes": time.weight_bytes },
            })
        }));
    }
    let text = json!({ "traceEvents": events }).to_string();
    fs::write(path, text).map_err(|source| Error::Io { path: path.to_owned(), source })
}
