//! `gemma4-wgpu run`

use std::io::{self, IsTerminal, Read, Write};
use std::num::NonZeroUsize;
use std::time::Instant;

use clap::Args;

use crate::api::{ChatOptions, Model, open::DEFAULT_CONTEXT};
use crate::cli::answer::Thoughts;
use crate::cli::model::ModelArgs;
use crate::cli::report::Output;
use crate::cli::session::Session;
use crate::cli::{Exit, chat, form::FormArgs, interrupt};
use crate::error::{Error, Result};
use crate::generate::check_prompt;
use crate::model::source::TensorSource;
use crate::text::{Message, Processor, Prompt};

/// Generate text: answer one prompt, or chat in a terminal
///
/// The prompt is --prompt, or the words after the options, or standard input. Without any of them a
/// chat starts. Ctrl-C stops an answer. A second Ctrl-C ends the program.
#[derive(Args)]
pub struct RunArgs {
    /// Prompt
    #[arg(value_name = "PROMPT", conflicts_with = "prompt")]
    words: Vec<String>,
    /// Prompt, as an option
    #[arg(long, short, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// System message
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "raw_prompt")]
    system: Option<String>,
    /// Continue the prompt as it is, without the chat template. Control tokens that it spells count
    /// as such
    #[arg(long)]
    raw_prompt: bool,
    /// Let the model think before it answers, and show its thoughts. They are dimmed in a terminal,
    /// else between the lines "Thinking..." and "...done thinking."
    #[arg(long, conflicts_with = "raw_prompt")]
    thinking: bool,
    /// Read control tokens that prompt and system message spell, such as <|turn>, as control tokens
    #[arg(long, conflicts_with = "raw_prompt")]
    parse_special: bool,
    /// Most tokens of an answer [default: as many as the context has room for]
    #[arg(long, short = 'n', value_name = "N")]
    max_new_tokens: Option<NonZeroUsize>,
    /// End the answer before this text; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Print times, rates and device memory to stderr
    #[arg(long)]
    stats: bool,
    /// Print one JSON object with the answer, its tokens and figures instead of streaming text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    form: FormArgs,
}

/// The choice of tokens. Values that are not given come from the checkpoint, or else are Gemma's
/// defaults.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
struct SamplingArgs {
    /// Randomness; 0 always takes the likeliest token [default: the checkpoint's, else 1]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the K likeliest tokens; 0 for all [default: the checkpoint's, else 64]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the likeliest tokens that together reach this probability [default: the
    /// checkpoint's, else 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Leave out tokens less likely than this fraction of the likeliest [default: the checkpoint's,
    /// else 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Above 1: make tokens that already occurred less likely [default: the checkpoint's, else 1]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens that the answer already has
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = 0.0)]
    presence_penalty: f32,
    /// Subtracted for each occurrence of a token in the answer
    #[arg(long, value_name = "P", allow_negative_numbers = true, default_value_t = 0.0)]
    frequency_penalty: f32,
    /// Same seed, same text [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

pub fn run(args: &RunArgs) -> Result<(), Exit> {
    let text = args.prompt()?;
    if text.is_none() && args.json {
        return Err(
            Error::Input("--json needs a prompt: give --prompt or standard input".into()).into()
        );
    }
    // Errors in the options are found before the weights are loaded.
    let checkpoint = args.model.open()?;
    let processor = Processor::new(&checkpoint.text_assets()?)?;
    let options = args.options();
    options.sampling(processor.sampling())?;
    options.adjustments().validate()?;
    let context_length = args.model.context_length(&checkpoint, DEFAULT_CONTEXT)?;
    let messages = args.messages(text.as_deref());
    let prompt = args.processed(&processor, &messages, text.as_deref(), &options)?;
    if let Some(prompt) = &prompt {
        check_prompt(prompt.tokens.len(), context_length)?;
    }
    let vocab_size = checkpoint.config().vocab_size;
    let any = Prompt { tokens: Vec::new(), is_chat: !args.raw_prompt };
    let rules = args.form.rules(&processor, vocab_size, &any, args.thinking)?;
    interrupt::install()?;
    let start = Instant::now();
    let backend = args.model.load(&checkpoint, context_length)?;
    let load_time = start.elapsed();
    let mut session = Session {
        model: Model::new(backend, Some(processor)),
        options,
        raw: args.raw_prompt,
        rules,
        stop: args.stop.clone(),
        thoughts: Thoughts::for_stdout(args.thinking),
    };
    let hides_thoughts = !args.thinking && !args.json;
    let output = Output { chat: prompt.is_none(), hides_thoughts, stats: args.stats, load_time };
    match prompt {
        Some(prompt) if args.json => answer_json(&mut session, &prompt, &output),
        Some(prompt) => answer_once(&mut session, &prompt, &output),
        None => chat::run(&mut session, messages, &output, args.model.quiet),
    }
}

/// Streams one answer to standard output.
fn answer_once(session: &mut Session, prompt: &Prompt, output: &Output) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    let answer = session.answer(prompt, &mut stdout)?;
    writeln!(stdout).map_err(Exit::from_stdout)?;
    output.after(&answer, session);
    if answer.interrupted() { Err(Exit::Interrupted) } else { Ok(()) }
}

/// Prints one answer as a JSON object.
fn answer_json(session: &mut Session, prompt: &Prompt, output: &Output) -> Result<(), Exit> {
    let answer = session.answer(prompt, &mut io::sink())?;
    let report = serde_json::to_string(&output.report(&answer, session))
        .map_err(|error| Error::Input(format!("the answer cannot be written as JSON: {error}")))?;
    writeln!(io::stdout(), "{report}").map_err(Exit::from_stdout)?;
    output.after(&answer, session);
    if answer.interrupted() { Err(Exit::Interrupted) } else { Ok(()) }
}

impl RunArgs {
    fn options(&self) -> ChatOptions {
        let sampling = &self.sampling;
        ChatOptions {
            max_new_tokens: self.max_new_tokens,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            seed: sampling.seed,
            thinking: self.thinking,
            parse_special: self.parse_special,
        }
    }

    /// The conversation before the model's first answer.
    fn messages(&self, prompt: Option<&str>) -> Vec<Message> {
        let system = self.system.as_ref().map(Message::system);
        system.into_iter().chain(prompt.map(Message::user)).collect()
    }

    /// The single prompt in tokens; `None` for a chat. Errors: a template is needed but missing.
    fn processed(
        &self,
        processor: &Processor,
        messages: &[Message],
        prompt: Option<&str>,
        options: &ChatOptions,
    ) -> Result<Option<Prompt>> {
        Ok(match prompt {
            Some(text) if self.raw_prompt => Some(processor.raw(text)?),
            Some(_) => Some(processor.chat(messages, &options.render_options())?),
            None if self.raw_prompt => None,
            None => processor.template().map(|_| None)?,
        })
    }

    /// The single prompt; `None` for a chat.
    fn prompt(&self) -> Result<Option<String>> {
        if let Some(prompt) = &self.prompt {
            return Ok(Some(prompt.clone()));
        }
        if !self.words.is_empty() {
            return Ok(Some(self.words.join(" ")));
        }
        if io::stdin().is_terminal() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let stdin = || "standard input".into();
        io::stdin()
            .read_to_end(&mut bytes)
            .map_err(|source| Error::Io { path: stdin(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            Error::Input(format!(
                "standard input: invalid UTF-8 at byte {}",
                error.utf8_error().valid_up_to()
            ))
        })?;
        match text.strip_suffix('\n').unwrap_or(&text) {
            "" => Err(Error::Input("standard input: no prompt".into())),
            text => Ok(Some(text.to_owned())),
        }
    }
}
