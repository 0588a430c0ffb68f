//! `gemma4-wgpu eval`

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::api::Model;
use crate::checkpoint::Checkpoint;
use crate::cli::Exit;
use crate::cli::interrupt::{self, Work};
use crate::cli::logits_file::{BaseLogits, LogitsFile};
use crate::cli::model::ModelArgs;
use crate::cli::progress::progress_bar;
use crate::error::{Error, Result};
use crate::generate::{Divergence, Perplexity, check_prompt};
use crate::model::source::TensorSource;
use crate::text::Tokenizer;

/// Measure how well the model predicts a text, or write its logits
///
/// The text is one context. It starts with the start token if the tokenizer adds one. Every token
/// after the first is predicted from all tokens before it. The perplexity is exp of the mean
/// negative log-likelihood of these predictions.
#[derive(Args)]
pub struct EvalArgs {
    #[command(flatten)]
    source: Source,
    /// Write the logits of every position as f32 tensor "logits" [tokens, vocab] to a safetensors
    /// file
    #[arg(long, value_name = "FILE")]
    logits_out: Option<PathBuf>,
    /// Print also how far the predictions differ from a base: another run over the same tokens.
    /// FILE has its logits, from --logits-out. The results are the mean and largest
    /// Kullback-Leibler divergence in nats, and how often the likeliest token is the same
    #[arg(long, value_name = "FILE")]
    kl_divergence_base: Option<PathBuf>,
    /// Most tokens of one step; by default as many as the device takes. With few (8 where
    /// activations become int8), the kernels of generation run
    #[arg(long, value_name = "N")]
    ubatch_size: Option<NonZeroUsize>,
    /// Use only the first N tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Print a JSON object: tokens (predicted), nll (mean, in nats), perplexity. With a base also
    /// kl_divergence, kl_divergence_max and same_top (0 to 1), over all positions
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// Text to predict, UTF-8
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Token ids to predict, a JSON array; needs no tokenizer
    #[arg(long, value_name = "FILE")]
    token_ids: Option<PathBuf>,
}

pub fn run(args: &EvalArgs) -> Result<(), Exit> {
    let checkpoint = args.model.open()?;
    let mut tokens = args.source.tokens(&checkpoint)?;
    tokens.truncate(args.max_tokens.unwrap_or(usize::MAX));
    if tokens.len() < 2 && args.logits_out.is_none() && args.kl_divergence_base.is_none() {
        return Err(Error::Input(format!(
            "a perplexity needs at least 2 tokens, not {}",
            tokens.len()
        ))
        .into());
    }
    let context_length = args.model.context_length(&checkpoint, tokens.len())?;
    check_prompt(tokens.len(), context_length)?;
    interrupt::install()?;
    let mut model = Model::new(args.model.load(&checkpoint, context_length)?, None);
    let (score, divergence) = evaluate(args, &mut model, &tokens)?;
    print(args, &score, &divergence).map_err(Exit::from_stdout)
}

/// Runs the tokens once: scores them, compares them with a base and writes the logits, as the
/// options demand.
fn evaluate(
    args: &EvalArgs,
    model: &mut Model,
    tokens: &[u32],
) -> Result<(Perplexity, Divergence), Exit> {
    let vocab = model.config().vocab_size;
    let work = Work::begin();
    let base = args.kl_divergence_base.as_ref();
    let mut base = base.map(|path| BaseLogits::open(path, tokens.len(), vocab)).transpose()?;
    let mut file = match &args.logits_out {
        Some(path) => Some(LogitsFile::create(path, tokens.len(), vocab)?),
        None => None,
    };
    let bar = progress_bar(tokens.len() as u64, args.model.quiet);
    let (mut score, mut divergence) = (Perplexity::default(), Divergence::default());
    let most = args.ubatch_size.map_or(usize::MAX, NonZeroUsize::get);
    let visited = pollster::block_on(model.logits_in_steps(tokens, most, &mut |first, rows| {
        if work.stopped() {
            return Err(Error::Input("interrupted".into()));
        }
        bar.inc((rows.len() / vocab) as u64);
        score.add(rows, vocab, &tokens[first + 1..])?;
        if let Some(base) = &mut base {
            divergence.add(&base.read(rows.len())?, rows, vocab)?;
        }
        file.as_mut().map_or(Ok(()), |file| file.append(rows))
    }));
    bar.finish_and_clear();
    match visited {
        Err(_) if work.stopped() => return Err(Exit::Interrupted),
        visited => visited?,
    }
    file.map_or(Ok(()), LogitsFile::finish)?;
    Ok((score, divergence))
}

fn print(args: &EvalArgs, score: &Perplexity, divergence: &Divergence) -> io::Result<()> {
    let mut out = io::stdout();
    let (nll, perplexity) = (score.mean_nll(), score.perplexity());
    let (max, compared) = (divergence.max(), divergence.mean().zip(divergence.same_top()));
    if args.json {
        let mut object = json!({ "tokens": score.tokens(), "nll": nll, "perplexity": perplexity });
        if let Some((mean, same_top)) = compared {
            object["kl_divergence"] = json!(mean);
            object["kl_divergence_max"] = json!(max);
            object["same_top"] = json!(same_top);
        }
        return writeln!(out, "{object}");
    }
    if let Some((nll, perplexity)) = nll.zip(perplexity) {
        writeln!(out, "{} tokens, nll {nll:.5}, perplexity {perplexity:.4}", score.tokens())?;
    }
    match compared {
        Some((mean, same_top)) => {
            writeln!(
                out,
                "KL divergence {mean:.6}, at most {max:.4}, same top token {:.2}%",
                100.0 * same_top
            )
        }
        None => Ok(()),
    }
}

impl Source {
    /// The ids to run, all in the vocabulary.
    fn tokens(&self, checkpoint: &Checkpoint) -> Result<Vec<u32>> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })
        };
        match (&self.text, &self.token_ids) {
            (Some(path), _) => text_tokens(checkpoint, path, read(path)?),
            (None, Some(path)) => token_ids(checkpoint.config().vocab_size, path, &read(path)?),
            (None, None) => Err(Error::Input("give --text or --token-ids".into())),
        }
    }
}

/// The text's tokens, after the start token if the tokenizer adds one. Text that spells a special
/// token remains text.
fn text_tokens(checkpoint: &Checkpoint, path: &Path, bytes: Vec<u8>) -> Result<Vec<u32>> {
    let text = String::from_utf8(bytes).map_err(|error| {
        Error::Input(format!(
            "{}: invalid UTF-8 at byte {}",
            path.display(),
            error.utf8_error().valid_up_to()
        ))
    })?;
    let assets = checkpoint.text_assets()?;
    Tokenizer::new(&assets)?.encode_prompt(&text, false)
}

fn token_ids(vocab: usize, path: &Path, json: &[u8]) -> Result<Vec<u32>> {
    let unusable = |reason: String| Error::Input(format!("{}: {reason}", path.display()));
    let ids: Vec<u32> = serde_json::from_slice(json)
        .map_err(|error| unusable(format!("not a JSON array of token ids: {error}")))?;
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => Err(unusable(format!("token id {id} is outside the vocabulary of {vocab}"))),
        None => Ok(ids),
    }
}
