//! `--autotune`: the kernel variants that are fastest for a model's shapes on a device, found by
//! measuring them once.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    checkpoint::Checkpoint,
    cli::bench::measure::{Test, Work},
    cpu::CpuBackend,
    error::{Error, Result},
    generate::{Divergence, each_logits_in_steps},
    gpu::{
        AdapterFacts, DeviceOptions, Gpu, GpuBackend, KernelOption, KernelOptions, KernelTarget,
    },
    model::{
        config::{LayerConfig, ModelConfig},
        kv::CacheType,
        source::TensorSource,
        weights::LoadOptions,
    },
};

/// A choice must be faster by so much to be kept: what differs less may be noise.
const GAIN: f64 = 1.03;
/// Kinds of layers, and tokens of the vocabulary, that the measured model has at most.
const MOST_LAYERS: usize = 4;
const MOST_VOCABULARY: usize = 16384;
/// Nats by which a variant's predictions may differ from the processor's, in the mean; int8
/// activations cost some 0.002.
const MOST_DIVERGENCE: f64 = 0.02;
/// Two variants take turns so often after a warm-up each, and the fastest turn counts.
const TURNS: usize = 3;

/// Tokens a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Rates {
    prompt: f64,
    generation: f64,
}

impl Rates {
    /// The ratios to another's.
    fn over(&self, other: &Rates) -> Rates {
        Rates { prompt: self.prompt / other.prompt, generation: self.generation / other.generation }
    }

    /// How many times as fast, from ratios: their geometric mean.
    fn gain(&self) -> f64 {
        (self.prompt * self.generation).sqrt()
    }

    fn faster(&self, other: &Rates) -> Rates {
        Rates {
            prompt: self.prompt.max(other.prompt),
            generation: self.generation.max(other.generation),
        }
    }
}

/// What can be measured: a model with some kernels. A turn runs both tests once.
trait Subject {
    fn turn(&mut self) -> Result<Rates>;
}

/// What became of a variant that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Trial {
    kernels: String,
    /// How many times as fast as the best before it, or why that is not known.
    ratios: Result<Rates, String>,
    kept: bool,
}

/// What was found, as it is kept in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Found {
    /// The device, the model's shapes and what was asked for.
    identity: String,
    kernels: String,
    trials: Vec<Trial>,
}

/// The variants for a model of this shape on the device that `options` name: those found before, if
/// `directory` has them, or else by measuring. What `options.kernels` say is not touched. `report`
/// is told each result as a line.
///
/// Errors: no such device, or one on which the variant that is chosen without measuring fails.
pub fn choose(
    options: &DeviceOptions,
    config: &ModelConfig,
    cache_type: CacheType,
    directory: Option<&Path>,
    report: &mut dyn FnMut(&str),
) -> Result<KernelOptions> {
    let gpu = pollster::block_on(Gpu::open(options))?;
    let (facts, target) = (gpu.facts().clone(), *gpu.target());
    drop(gpu);
    let probe = probe(config);
    let identity = identity(&facts, &probe, cache_type, &options.kernels);
    let path = directory.map(|directory| file_of(directory, &identity));
    if let Some(kernels) = path.as_deref().and_then(|path| read(path, &identity)) {
        report(&format!("found before: {}", shown(&kernels)));
        return Ok(kernels);
    }
    let bench = Bench { options, probe: &probe, cache_type, reference: Reference::new()? };
    let start = Start { facts: &facts, target, kernels: options.kernels };
    let (kernels, trials) = search(&start, &mut |kernels| bench.open(kernels), report)?;
    report(&format!("kept: {}", shown(&kernels)));
    if let Some(path) = path {
        let found = Found { identity, kernels: kernels.to_string(), trials };
        if let Err(error) = write(&path, &found) {
            log::warn!("what was found cannot be kept in {}: {error}", path.display());
        }
    }
    Ok(kernels)
}

fn shown(kernels: &KernelOptions) -> String {
    let text = kernels.to_string();
    if text.is_empty() { "the device's usual kernels".into() } else { text }
}

/// Where a search begins.
struct Start<'a> {
    facts: &'a AdapterFacts,
    /// What is chosen without measuring.
    target: KernelTarget,
    /// What was asked for.
    kernels: KernelOptions,
}

/// Switches one option after another, and keeps what makes the model faster. `open` may find that
/// kernels cannot be used.
fn search<S: Subject>(
    start: &Start<'_>,
    open: &mut dyn FnMut(&KernelOptions) -> Result<S>,
    report: &mut dyn FnMut(&str),
) -> Result<(KernelOptions, Vec<Trial>)> {
    let (mut kernels, mut target, mut best) = (start.kernels, start.target, open(&start.kernels)?);
    best.turn()?;
    let mut trials = Vec::new();
    for option in KernelOption::search_order() {
        let Some((candidate, switched)) = switch(option, &kernels, &target, start.facts) else {
            continue;
        };
        // A driver that cannot run it says so in its own way.
        let outcome = open(&candidate)
            .and_then(|mut subject| Ok((compare(&mut best, &mut subject)?, subject)));
        let kept = matches!(&outcome, Ok((ratios, _)) if ratios.gain() > GAIN);
        report(&match &outcome {
            Ok((Rates { prompt, generation }, _)) => {
                let verdict = if kept { ", kept" } else { "" };
                format!(
                    "{}: prompts {prompt:.2}x, generation {generation:.2}x{verdict}",
                    shown(&candidate)
                )
            }
            Err(reason) => format!("{}: {reason}", shown(&candidate)),
        });
        let ratios = outcome.as_ref().map(|(ratios, _)| *ratios).map_err(|error| error.to_string());
        trials.push(Trial { kernels: candidate.to_string(), ratios, kept });
        if let (Ok((_, subject)), true) = (outcome, kept) {
            (kernels, target, best) = (candidate, switched, subject);
        }
    }
    Ok((kernels, trials))
}

/// The kernels with an option switched, and their target; `None` if it was asked for, or makes no
/// difference here.
fn switch(
    option: &KernelOption,
    kernels: &KernelOptions,
    target: &KernelTarget,
    facts: &AdapterFacts,
) -> Option<(KernelOptions, KernelTarget)> {
    // Measured when the device was opened; the facts do not have it.
    let known = |kernels: &KernelOptions| KernelOptions {
        prefetch: kernels.prefetch.or(Some(target.tuning.prefetch)),
        ..*kernels
    };
    let is_on = option.get(&known(kernels).resolve(facts).ok()?)?;
    let mut switched = *kernels;
    option.get(kernels).is_none().then(|| option.set(&mut switched, Some(!is_on)))?;
    let target_there = KernelTarget::choose(facts, &known(&switched)).ok()?;
    (target_there != *target).then_some((switched, target_there))
}

/// How many times as fast `candidate` is as `best`, taking turns: what else the machine does meets
/// both.
fn compare<S: Subject>(best: &mut S, candidate: &mut S) -> Result<Rates> {
    candidate.turn()?;
    let mut rates = (best.turn()?, candidate.turn()?);
    for _ in 1..TURNS {
        rates = (rates.0.faster(&best.turn()?), rates.1.faster(&candidate.turn()?));
    }
    Ok(rates.1.over(&rates.0))
}

/// A model of the same layers, one of each kind.
fn probe(config: &ModelConfig) -> ModelConfig {
    let mut probe = config.clone();
    probe.layers.clear();
    for layer in &config.layers {
        // The keys that a layer shares are here those of the layer that is like their own.
        let own =
            |index: usize| probe.layers.iter().position(|other| *other == config.layers[index]);
        let layer = LayerConfig { kv_from: layer.kv_from.and_then(own), ..layer.clone() };
        if probe.layers.len() < MOST_LAYERS && !probe.layers.contains(&layer) {
            probe.layers.push(layer);
        }
    }
    probe.vocab_size = probe.vocab_size.min(MOST_VOCABULARY);
    if let Some(input) = &mut probe.per_layer_input {
        input.vocab_size = probe.vocab_size;
    }
    probe
}

/// Makes models to measure.
struct Bench<'a> {
    options: &'a DeviceOptions,
    probe: &'a ModelConfig,
    cache_type: CacheType,
    reference: Reference,
}

impl Bench<'_> {
    /// Errors: a device that fails, or that computes something else with these kernels.
    fn open(&self, kernels: &KernelOptions) -> Result<Probe> {
        let options = DeviceOptions { kernels: *kernels, ..self.options.clone() };
        let gpu = pollster::block_on(Gpu::open(&options))?;
        self.reference.check(&gpu)?;
        let (prompt, generated) = match gpu.facts().device_type.as_str() {
            "discrete GPU" => (512, 64),
            "CPU" => (32, 4),
            _ => (128, 16),
        };
        let most = self.probe.max_position_embeddings;
        let tests = [
            Work::Prompt(prompt.min(most)),
            Work::Generate(generated.min(most.saturating_sub(1)).max(1)),
        ]
        .map(|work| Test { work, depth: 0, parallel: 1, sampled: false });
        let load = LoadOptions {
            context_length: tests.iter().map(Test::positions).max().unwrap_or(1),
            cache_type: self.cache_type,
            ..LoadOptions::default()
        };
        let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64 | 1;
        let backend =
            pollster::block_on(GpuBackend::synthetic(gpu, self.probe.clone(), &load, seed as u32))?;
        Ok(Probe { backend, tests, seed })
    }
}

/// A model on a device, and what it is timed with: a prompt and generation.
struct Probe {
    backend: GpuBackend,
    tests: [Test; 2],
    seed: u64,
}

impl Subject for Probe {
    fn turn(&mut self) -> Result<Rates> {
        let mut rate = |test: &Test| -> Result<f64> {
            let time = test.run(&mut self.backend, &mut self.seed)?;
            Ok(test.tokens() as f64 / time.as_secs_f64().max(1e-9))
        };
        let [prompt, generation] = &self.tests;
        Ok(Rates { prompt: rate(prompt)?, generation: rate(generation)? })
    }
}

/// What the embedded model predicts on the processor: a variant that is fast and wrong is no
/// choice.
struct Reference {
    checkpoint: Checkpoint,
    tokens: Vec<u32>,
    logits: Vec<f32>,
}

impl Reference {
    const TOKENS: u32 = 24;
    const OPTIONS: LoadOptions = LoadOptions {
        quantize: crate::quant::Quantize::Int4,
        context_length: Self::TOKENS as usize,
        max_sequences: 1,
        cache_type: CacheType::F16,
    };

    fn new() -> Result<Reference> {
        let checkpoint = Checkpoint::demo()?;
        let vocab = checkpoint.config().vocab_size as u32;
        let tokens: Vec<u32> = (0..Self::TOKENS).map(|i| (i * 97 + 13) % vocab).collect();
        let mut cpu =
            pollster::block_on(CpuBackend::load(&checkpoint, &Self::OPTIONS, &mut |_| ()))?;
        let mut logits = Vec::new();
        pollster::block_on(each_logits_in_steps(&mut cpu, &tokens, usize::MAX, &mut |_, rows| {
            logits.extend_from_slice(rows);
            Ok(())
        }))?;
        Ok(Reference { checkpoint, tokens, logits })
    }

    /// Errors if the device predicts otherwise, in one step or token by token.
    fn check(&self, gpu: &Gpu) -> Result<()> {
        let vocab = self.checkpoint.config().vocab_size;
        let mut backend = pollster::block_on(GpuBackend::load(
            gpu.clone(),
            &self.checkpoint,
            &Self::OPTIONS,
            &mut |_| (),
        ))?;
        for most in [usize::MAX, 1] {
            let mut divergence = Divergence::default();
            pollster::block_on(each_logits_in_steps(
                &mut backend,
                &self.tokens,
                most,
                &mut |first, rows| {
                    divergence.add(&self.logits[first * vocab..][..rows.len()], rows, vocab)
                },
            ))?;
            // Not a number counts as wrong.
            match divergence.mean() {
                Some(mean) if mean <= MOST_DIVERGENCE => {}
                mean => {
                    let mean = mean.unwrap_or(f64::NAN);
                    return Err(Error::Device(format!(
                        "its predictions are {mean:.3} nats from the processor's"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// All that decides whether what was found still holds.
fn identity(
    facts: &AdapterFacts,
    probe: &ModelConfig,
    cache_type: CacheType,
    asked: &KernelOptions,
) -> String {
    let shapes = (probe.hidden_size, &probe.layers, cache_type);
    // Cards of one name may be different models.
    let device = format!("{facts} {:04x}:{:04x}", facts.vendor, facts.device);
    format!("gemma4-wgpu {}, {device}, {shapes:?}, {}", env!("CARGO_PKG_VERSION"), shown(asked))
}

fn file_of(directory: &Path, identity: &str) -> PathBuf {
    let hash = Sha256::digest(identity);
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    directory.join(format!("{name}.json"))
}

/// What a file holds; `None` where there is none, or it is broken or of something else.
fn read(path: &Path, identity: &str) -> Option<KernelOptions> {
    let found: Found = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (found.identity == identity).then(|| found.kernels.parse().ok()).flatten()
}

/// Writes a file that appears only when it is whole.
fn write(path: &Path, found: &Found) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec_pretty(found)?)?;
    file.persist(path).map(|_| ()).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_share_keys_as_their_models_do() {
        for name in ["e4b", "e2b", "31b"] {
            let probe = probe(&ModelConfig::named(name).unwrap());
            probe.validate().unwrap();
            let shared: Vec<_> = probe.layers.iter().map(|layer| layer.kv_from).collect();
            match name {
                "31b" => assert_eq!(shared, [None, None]),
                _ => assert_eq!(shared, [None, None, Some(0), Some(1)]),
            }
        }
    }

    /// A card with everything, on which nothing but these matters.
    struct Fake(Rates);

    impl Subject for Fake {
        fn turn(&mut self) -> Result<Rates> {
            Ok(self.0)
        }
    }

    /// The kernels found where `rates` are those of kernels, and the trials.
    fn found(asked: &str, rates: fn(&KernelOptions) -> Result<Rates>) -> (String, Vec<Trial>) {
        let (facts, kernels) = (AdapterFacts::example_card(), asked.parse().unwrap());
        let target = KernelTarget::choose(&facts, &kernels).unwrap();
        let start = Start { facts: &facts, target, kernels };
        let (kernels, trials) =
            search(&start, &mut |kernels| rates(kernels).map(Fake), &mut |_| ()).unwrap();
        (kernels.to_string(), trials)
    }

    fn rates(prompt: f64, generation: f64) -> Result<Rates> {
        Ok(Rates { prompt, generation })
    }

    #[test]
    fn what_is_faster_is_kept() {
        let (kernels, trials) =
            found("", |kernels| match (kernels.dp4a, kernels.large_workgroups) {
                (Some(true), Some(false)) => rates(100.0, 200.0),
                (Some(true), None) => rates(100.0, 150.0),
                _ => rates(100.0, 100.0),
            });
        assert_eq!(kernels, "dp4a=on,large_workgroups=off");
        // A card that has everything can switch everything.
        assert_eq!(trials.len(), KernelOption::search_order().len());
        assert_eq!(trials.iter().filter(|trial| trial.kept).count(), 2);
    }

    #[test]
    fn noise_changes_nothing() {
        let (kernels, trials) = found("", |kernels| {
            if kernels.dp4a.is_some() { rates(101.0, 103.0) } else { rates(100.0, 100.0) }
        });
        assert_eq!(kernels, "");
        assert!(trials.iter().all(|trial| !trial.kept));
    }

    #[test]
    fn what_was_asked_for_stays() {
        let (kernels, trials) = found("dp4a=off,coop=off", |kernels| match kernels.dp4a {
            Some(false) => rates(1.0, 1.0),
            _ => rates(9.0, 9.0),
        });
        assert_eq!(kernels, "dp4a=off,coop=off");
        assert!(trials.iter().all(|trial| trial.kernels.contains("dp4a=off,coop=off")));
    }

    #[test]
    fn kernels_that_fail_are_left_alone() {
        let (kernels, trials) = found("", |kernels| match kernels.f16 {
            Some(false) => {
                Err(Error::Device("its predictions are 3.000 nats from the processor's".into()))
            }
            _ => rates(1.0, 1.0),
        });
        assert_eq!(kernels, "");
        let failed: Vec<&Trial> = trials.iter().filter(|trial| trial.ratios.is_err()).collect();
        assert_eq!(failed.len(), 1);
        assert!(failed[0].kernels == "f16=off" && !failed[0].kept);
    }

    #[test]
    fn cards_of_one_name_are_measured_apart() {
        let probe = ModelConfig::named("demo").unwrap();
        let of = |facts: AdapterFacts| {
            identity(&facts, &probe, CacheType::F16, &KernelOptions::default())
        };
        let card = AdapterFacts::example_card;
        assert_eq!(
            of(card()),
            of(AdapterFacts { index: 1, pci_bus_id: Some("0000:5e:00.0".into()), ..card() })
        );
        assert_ne!(of(card()), of(AdapterFacts { device: 2, ..card() }));
    }

    #[test]
    fn only_files_of_the_same_device_and_model_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = file_of(&directory.path().join("new"), "card A");
        let found =
            Found { identity: "card A".into(), kernels: "dp4a=on".into(), trials: Vec::new() };
        assert_eq!(read(&path, "card A"), None);
        write(&path, &found).unwrap();
        assert_eq!(read(&path, "card A"), Some("dp4a=on".parse().unwrap()));
        assert_eq!(read(&path, "card B"), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(read(&path, "card A"), None);
        fs::write(
            &path,
            serde_json::to_vec(&Found { kernels: "speed=on".into(), ..found }).unwrap(),
        )
        .unwrap();
        assert_eq!(read(&path, "card A"), None);
    }
}
