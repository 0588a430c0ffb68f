//! `gemma4-wgpu bench`

mod profile;
mod table;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};

use self::table::{Facts, Row};
use super::{Exit, model::ModelArgs};
use crate::backend::Backend;
use crate::model::config::shapes;
use crate::tune::workload::{Test, Work};
use crate::{Error, Result};

/// Measure prompt processing and generation
#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Random int4 weights of a published shape instead of a checkpoint
    #[arg(long, value_name = "NAME", value_parser = shape_names(), conflicts_with = "model")]
    synthetic: Option<String>,
    /// Prompt lengths to process
    #[arg(short = 'p', long, value_delimiter = ',', default_value = "512", value_name = "TOKENS")]
    prompt: Vec<usize>,
    /// Numbers of tokens to generate
    #[arg(short = 'n', long, value_delimiter = ',', default_value = "128", value_name = "TOKENS")]
    generate: Vec<usize>,
    /// Tokens of one sequence in a step, which runs again and again at the same depth
    #[arg(long, value_delimiter = ',', value_name = "TOKENS")]
    step_tokens: Vec<NonZeroUsize>,
    /// Tokens in the context before the clock starts
    #[arg(short, long, value_delimiter = ',', default_value = "0", value_name = "TOKENS")]
    depth: Vec<usize>,
    /// Sequences that generate together
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "COUNT")]
    parallel: Vec<NonZeroUsize>,
    /// Generate with tokens drawn at temperature 1, top-k 64 and top-p 0.95 too, after the
    /// likeliest ones
    #[arg(long)]
    sample: bool,
    /// How often each test runs, after a warm-up
    #[arg(short, long, default_value = "5", value_name = "COUNT")]
    repetitions: NonZeroUsize,
    /// After the table, print the time of each kernel in one step of every test
    #[arg(long)]
    profile: bool,
    /// Write the kernels of that step to a Chrome trace, which Perfetto also reads
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Format of the results
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// The same as --output csv
    #[arg(long, conflicts_with_all = ["output", "json"])]
    csv: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Output {
    /// A Markdown table
    #[default]
    Md,
    Json,
    Csv,
}

/// The names of all shapes.
fn shape_names() -> PossibleValuesParser {
    PossibleValuesParser::new(shapes::NAMES.map(PossibleValue::new))
}

impl BenchArgs {
    /// The format of the results. Errors if it does not allow profiles.
    fn output(&self) -> Result<Output> {
        let output = match (self.json, self.csv) {
            (true, _) => Output::Json,
            (_, true) => Output::Csv,
            _ => self.output,
        };
        match self.profile && output != Output::Md {
            true => {
                Err(Error::Input("--profile prints tables: use --trace with JSON or CSV".into()))
            }
            false => Ok(output),
        }
    }

    fn tests(&self) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for &depth in &self.depth {
            let prompts = self.prompt.iter().filter(|&&count| count > 0);
            let test = |work, parallel, sampled| Test { work, depth, parallel, sampled };
            tests.extend(prompts.map(|&count| test(Work::Prompt(count), 1, false)));
            for &count in self.generate.iter().filter(|&&count| count > 0) {
                for parallel in &self.parallel {
                    let choices = if self.sample { &[false, true][..] } else { &[false] };
                    tests.extend(
                        choices.iter().map(|&s| test(Work::Generate(count), parallel.get(), s)),
                    );
                }
            }
            let steps = self.step_tokens.iter();
            tests.extend(steps.map(|count| test(Work::Step(count.get()), 1, false)));
        }
        match tests.is_empty() {
            true => Err(Error::Input("nothing to measure: -p and -n are all 0".into())),
            false => Ok(tests),
        }
    }
}

pub fn run(args: &BenchArgs) -> Result<(), Exit> {
    let tests = args.tests()?;
    let output = args.output()?;
    let positions = tests.iter().map(Test::positions).max().unwrap_or(1);
    let sequences = tests.iter().map(|test| test.parallel).max().unwrap_or(1);
    let mut seed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64 | 1;
    let (name, mut backend, ceiling) = match &args.synthetic {
        Some(name) => {
            let (backend, ceiling) =
                args.model.load_synthetic(name, positions, sequences, seed as u32)?;
            (format!("{name} synthetic"), backend, ceiling)
        }
        None => args.model.load_for_bench(positions, sequences)?,
    };
    let untimed = backend.info().backend;
    if (args.profile || args.trace.is_some()) && untimed != "wgpu" {
        return Err(Error::Unsupported(format!("profiles on the {untimed} backend")).into());
    }
    let most = backend.info().max_step_tokens;
    if let Some(count) = args.step_tokens.iter().find(|count| count.get() > most) {
        return Err(
            Error::Input(format!("--step-tokens {count}: a step has at most {most}")).into()
        );
    }
    let mut rows = Vec::new();
    for test in &tests {
        rows.push(measure(test, &name, &mut *backend, args.repetitions.get(), ceiling, &mut seed)?);
    }
    let mut profiles = Vec::new();
    if args.profile || args.trace.is_some() {
        for test in &tests {
            profiles.push((test.name(), profile::run(test, &mut *backend, &mut seed)?));
        }
    }
    if let Some(path) = &args.trace {
        profile::write_trace(path, &profiles)?;
    }
    let facts = Facts { read_ceiling_gb_per_s: ceiling, peak_bytes: backend.info().peak_bytes };
    let mut text = render(&rows, &facts, output)
        .map_err(|error| Error::Input(format!("the results cannot be written: {error}")))?;
    if args.profile {
        text.extend(profiles.iter().map(|(test, times)| profile::table(test, times)));
    }
    io::stdout().write_all(text.as_bytes()).map_err(Exit::from_stdout)
}

/// Enough work for a card's clock to rise from its lowest, which takes 0.2 to 0.3 s.
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs a test to warm up, then `repetitions` times.
fn measure(
    test: &Test,
    model: &str,
    backend: &mut dyn Backend,
    repetitions: usize,
    ceiling: Option<f64>,
    seed: &mut u64,
) -> Result<Row> {
    let rate = |time: &Duration| test.tokens() as f64 / time.as_secs_f64();
    // Only the clocks of a graphics card fall while it is idle.
    let warm_up = if backend.info().backend == "wgpu" { WARM_UP } else { Duration::ZERO };
    let times = test.run(backend, Some(warm_up), repetitions, seed)?;
    let samples: Vec<f64> = times.iter().map(rate).collect();
    let mut sorted = samples.clone();
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[(repetitions - 1) / 2] + sorted[repetitions / 2]) / 2.0;
    let info = backend.info();
    let multiplications = backend.config().layer_multiplications() as f64;
    let is_prompt = matches!(test.work, Work::Prompt(_));
    let step_seconds = test.steps().map(|steps| test.tokens() as f64 / steps as f64 / median);
    // All rows share one read of the weights, except for their rows of the table and other experts.
    let read_bytes = (info.weight_bytes - info.unread_bytes) as f64;
    let bandwidth = step_seconds.map(|seconds| read_bytes / seconds / 1e9);
    Ok(Row {
        model: model.to_owned(),
        backend: info.backend,
        device: info.device,
        weight_bytes: info.weight_bytes,
        test: test.name(),
        repetitions,
        median,
        min: sorted[0],
        max: sorted[repetitions - 1],
        samples,
        step_ms: step_seconds.map(|seconds| 1e3 * seconds),
        weight_gb_per_s: bandwidth,
        of_read_ceiling: bandwidth.zip(ceiling).map(|(rate, ceiling)| rate / ceiling),
        tflop_per_s: is_prompt.then_some(median * 2.0 * multiplications / 1e12),
    })
}

fn render(rows: &[Row], facts: &Facts, output: Output) -> Result<String, serde_json::Error> {
    Ok(match output {
        Output::Json => format!("{:#}\n", serde_json::json!({ "results": rows, "facts": facts })),
        Output::Csv => table::csv(rows)?,
        Output::Md => {
            let device = rows.first().map_or("", |row| &row.device);
            let ceiling = facts
                .read_ceiling_gb_per_s
                .map(|rate| format!(", reads {rate:.0} GB/s"))
                .unwrap_or_default();
            let peak = facts.peak_bytes as f64 / 1e9;
            format!("{device}{ceiling}, {peak:.2} GB held at most\n\n{}", table::markdown(rows))
        }
    })
}
