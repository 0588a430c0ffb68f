//! From a conversation to the pieces of its answers.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::select_all;

use super::event::{ChatEvent, End, EndReason, Piece, Pieces, TokenChoice, Usage, arguments_text};
use super::history::name_results;
use super::request::{ChatRequest, Generation, ToolChoice, check_tools};
use crate::error::Error;
use crate::generate::{FinishReason, HostChoice, SequenceRequest, Stats, TokenEvent, Tokens};
use crate::grammar::{AnswerRules, CompiledRules};
use crate::sampling::{Adjustments, SamplingParams};
use crate::server::app::{App, new_id};
use crate::server::error::ApiError;
use crate::text::{AnswerEvent, Message, Processor, Prompt, RenderOptions, Role};

/// The prompt of a conversation.
///
/// Errors: results without calls, names of tools that no call can spell, a conversation that the
/// template refuses.
pub async fn prompt(app: &Arc<App>, request: &mut ChatRequest) -> Result<Prompt, ApiError> {
    rendered(app, request, Processor::chat).await
}

/// The text of the prompt of a conversation, with control tokens spelled out.
///
/// Errors: those of [`prompt`].
pub async fn prompt_text(app: &Arc<App>, request: &mut ChatRequest) -> Result<String, ApiError> {
    let render = |processor: &Processor, messages: &[Message], options: &RenderOptions| {
        processor.template()?.render(messages, options)
    };
    rendered(app, request, render).await
}

async fn rendered<T: Send + 'static>(
    app: &Arc<App>,
    request: &mut ChatRequest,
    render: impl Fn(&Processor, &[Message], &RenderOptions) -> Result<T, Error> + Send + 'static,
) -> Result<T, ApiError> {
    name_results(&mut request.messages)
        .map_err(|reason| ApiError::bad_field("messages", reason))?;
    check_tools(&request.tools).map_err(|reason| ApiError::bad_field("tools", reason))?;
    if request.tools.is_empty()
        && matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_))
    {
        return Err(ApiError::bad_field("tool_choice", "tool_choice requires a call of no tools"));
    }
    request.generation.rules = request.rules();
    let (app, options) = (Arc::clone(app), request.render_options());
    if !options.tools.is_empty() && !app.capabilities().contains(&"tools") {
        let message = "the model's chat template has no tools: leave tools out";
        return Err(ApiError::bad_field("tools", message));
    }
    let messages = one_system_message(std::mem::take(&mut request.messages));
    // Templates and tokenizers of long texts would block others.
    let made =
        tokio::task::spawn_blocking(move || render(&app.processor, &messages, &options)).await;
    Ok(made.map_err(|_| ApiError::internal("the prompt could not be made"))??)
}

/// Joins the system messages at the beginning. Templates expect one at most.
fn one_system_message(messages: Vec<Message>) -> Vec<Message> {
    let count = messages.iter().take_while(|message| message.role == Role::System).count();
    if count < 2 {
        return messages;
    }
    let (system, rest) = messages.split_at(count);
    let texts: Vec<_> = system.iter().map(Message::content).collect();
    let system = Message::new(Role::System, texts.join("\n\n"));
    [system].into_iter().chain(rest.iter().cloned()).collect()
}

/// Starts all answers to `prompts`: `choices` to each, in this order. Dropping the stream cancels
/// them.
///
/// Errors: the engine refuses one of them. None then runs.
pub async fn start(
    app: &Arc<App>,
    prompts: Vec<Prompt>,
    generation: &Generation,
) -> Result<Pieces, ApiError> {
    let sampling = generation.options.sampling(app.processor.sampling())?;
    let rules = compiled(app, &prompts, generation).await?;
    let mut answers = Vec::new();
    for prompt in prompts.into_iter().map(Arc::new) {
        for choice in 0..u64::from(generation.choices) {
            // Answers to one prompt differ, and each can be repeated.
            let seed = sampling.seed.map(|seed| seed.wrapping_add(choice));
            let request = SequenceRequest {
                prompt: prompt.tokens.clone(),
                sampling: SamplingParams { seed, ..sampling },
                choice: HostChoice {
                    adjustments: Adjustments {
                        logit_bias: generation.logit_bias.clone(),
                        ..generation.options.adjustments()
                    },
                    logprobs: generation.logprobs,
                    constraint: rules.as_ref().map(|rules| rules.constraint(&prompt.tokens)),
                },
                max_new_tokens: generation.options.max_new_tokens,
                eos_ids: app.processor.eos_ids(&prompt).to_vec(),
            };
            let tokens = app.engine.submit(request).await?;
            let stop = generation.stop.clone();
            let index = answers.len() as u32;
            let pieces = pieces(Arc::clone(app), Arc::clone(&prompt), tokens, stop);
            answers.push(pieces.map(move |piece| (index, piece)).boxed());
        }
    }
    Ok(select_all(answers).boxed())
}

/// The compiled rules of the answers. Large schemas would block others.
///
/// Errors: a form that cannot be compiled.
async fn compiled(
    app: &Arc<App>,
    prompts: &[Prompt],
    generation: &Generation,
) -> Result<Option<CompiledRules>, ApiError> {
    let rules = &generation.rules;
    let Some(prompt) = prompts.first().filter(|_| *rules != AnswerRules::default()) else {
        return Ok(None);
    };
    let eos_ids = app.processor.eos_ids(prompt).to_vec();
    let (app, rules) = (Arc::clone(app), rules.clone());
    let compile = move || app.grammars(&eos_ids)?.compile(&rules, &eos_ids);
    let made = tokio::task::spawn_blocking(compile).await;
    Ok(made.map_err(|_| ApiError::internal("the grammar could not be compiled"))??)
}

/// The pieces of one answer.
fn pieces(
    app: Arc<App>,
    prompt: Arc<Prompt>,
    mut tokens: Tokens,
    stop: Vec<String>,
) -> impl futures_util::Stream<Item = Piece> + Send {
    async_stream::stream! {
        let mut parser = app.processor.parser(&prompt).stop_at(stop);
        let mut translator = Translator::default();
        let mut count = 0;
        let (reason, stats) = loop {
            match tokens.next().await {
                Some(TokenEvent::Token { id, logprobs }) => {
                    count += 1;
                    if let Some(logprobs) = logprobs {
                        yield Piece::Token(TokenChoice { id, logprobs: *logprobs });
                    }
                    for event in translator.take(parser.push(id)) {
                        yield Piece::Event(event);
                    }
                    if let Some(stop) = parser.stop_text() {
                        let (prompt_tokens, generated_tokens) = (prompt.tokens.len(), count);
                        let stats = Stats { prompt_tokens, generated_tokens, ..Stats::default() };
                        break (EndReason::StopText(stop.to_owned()), stats);
                    }
                }
                Some(TokenEvent::Finished { reason, stats, .. }) => {
                    for event in translator.take(parser.finish()) {
                        yield Piece::Event(event);
                    }
                    break (translator.reason(reason), stats);
                }
                Some(TokenEvent::Failed(error)) => {
                    yield Piece::Failed(ApiError::failed(&error));
                    return;
                }
                None => {
                    yield Piece::Failed(ApiError::unavailable("the answer was cancelled", 5));
                    return;
                }
            }
        };
        // Frees the slot of an answer that a stop text has ended.
        drop(tokens);
        if let Some(time) = stats.time_to_first_token {
            app.metrics.first_token(time);
        }
        let usage = Usage::new(&stats, translator.thought_tokens);
        yield Piece::End(End { reason, usage });
    }
}

/// Translates the parser's events.
#[derive(Default)]
struct Translator {
    calls: usize,
    thought_tokens: usize,
}

impl Translator {
    /// Takes the events of one token.
    fn take(&mut self, events: Vec<AnswerEvent>) -> Vec<ChatEvent> {
        let mut translated = Vec::new();
        let mut is_thought = false;
        for event in events {
            match event {
                AnswerEvent::Content(text) => translated.push(ChatEvent::Text(text)),
                // Other channels are the model's own notes.
                AnswerEvent::Thought(text) | AnswerEvent::Channel { text, .. } => {
                    is_thought = true;
                    translated.push(ChatEvent::Thought(text));
                }
                AnswerEvent::ToolCall(call) => {
                    self.calls += 1;
                    let id = call.id.unwrap_or_else(|| new_id("call_"));
                    translated.push(ChatEvent::CallStart { id, name: call.name });
                    translated.push(ChatEvent::CallArguments(arguments_text(call.arguments)));
                    translated.push(ChatEvent::CallEnd);
                }
                AnswerEvent::BrokenCall(call) => {
                    let (text, reason) = (call.text, call.reason);
                    translated.push(ChatEvent::Malformed { text, reason });
                }
            }
        }
        self.thought_tokens += usize::from(is_thought);
        translated.retain(|event| match event {
            ChatEvent::Text(text) | ChatEvent::Thought(text) => !text.is_empty(),
            _ => true,
        });
        translated
    }

    fn reason(&self, reason: FinishReason) -> EndReason {
        match reason {
            FinishReason::Stop | FinishReason::Cancelled if self.calls > 0 => EndReason::ToolCalls,
            FinishReason::Stop | FinishReason::Cancelled => EndReason::Stop,
            FinishReason::Length => EndReason::Length,
            FinishReason::ContextFull => EndReason::ContextFull,
        }
    }
}
