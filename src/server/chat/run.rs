//! From a conversation to the pieces of its answers.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::select_all;

use super::event::{ChatEvent, End, EndReason, Piece, Pieces, Usage, arguments_text};
use super::history::name_results;
use super::request::{ChatRequest, Generation, ToolChoice, check_tools};
use super::stop::StopTexts;
use crate::error::Error;
use crate::generate::{FinishReason, SequenceRequest, Stats, TokenEvent, Tokens};
use crate::sampling::SamplingParams;
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
    if !matches!(request.tool_choice, ToolChoice::Auto | ToolChoice::None) {
        return Err(ApiError::unsupported("tool_choice", "a call that must come"));
    }
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
    let mut answers = Vec::new();
    for prompt in prompts.into_iter().map(Arc::new) {
        for choice in 0..u64::from(generation.choices) {
            // Answers to one prompt differ, and each can be repeated.
            let seed = sampling.seed.map(|seed| seed.wrapping_add(choice));
            let request = SequenceRequest {
                prompt: prompt.tokens.clone(),
                sampling: SamplingParams { seed, ..sampling },
                max_new_tokens: generation.options.max_new_tokens,
                eos_ids: app.processor.eos_ids(&prompt).to_vec(),
            };
            let tokens = app.engine.submit(request).await?;
            let stop = StopTexts::new(generation.stop.clone());
            let index = answers.len() as u32;
            let pieces = pieces(Arc::clone(app), Arc::clone(&prompt), tokens, stop);
            answers.push(pieces.map(move |piece| (index, piece)).boxed());
        }
    }
    Ok(select_all(answers).boxed())
}

/// The pieces of one answer.
fn pieces(
    app: Arc<App>,
    prompt: Arc<Prompt>,
    mut tokens: Tokens,
    stop: StopTexts,
) -> impl futures_util::Stream<Item = Piece> + Send {
    async_stream::stream! {
        let mut parser = Some(app.processor.parser(&prompt));
        let mut sieve = Sieve { stop, ..Sieve::default() };
        let mut count = 0;
        let (reason, stats) = loop {
            let (events, end) = match tokens.next().await {
                Some(TokenEvent::Token(token)) => {
                    count += 1;
                    (parser.as_mut().map(|parser| parser.push(token)).unwrap_or_default(), None)
                }
                Some(TokenEvent::Finished { reason, stats, .. }) => {
                    let rest = parser.take().map(|parser| parser.finish()).unwrap_or_default();
                    (rest, Some((reason, stats)))
                }
                Some(TokenEvent::Failed(error)) => {
                    yield Piece::Failed(ApiError::failed(&error));
                    return;
                }
                None => {
                    yield Piece::Failed(ApiError::unavailable("the answer was cancelled", 5));
                    return;
                }
            };
            sieve.take(events);
            for event in std::mem::take(&mut sieve.events) {
                yield Piece::Event(event);
            }
            if let Some(stop) = sieve.stopped.take() {
                let (prompt_tokens, generated_tokens) = (prompt.tokens.len(), count);
                let stats = Stats { prompt_tokens, generated_tokens, ..Stats::default() };
                break (EndReason::StopText(stop), stats);
            }
            if let Some((reason, stats)) = end {
                break (sieve.reason(reason), stats);
            }
        };
        // Frees the slot of an answer that a stop text has ended.
        drop(tokens);
        sieve.flush();
        for event in std::mem::take(&mut sieve.events) {
            yield Piece::Event(event);
        }
        if let Some(time) = stats.time_to_first_token {
            app.metrics.first_token(time);
        }
        let usage = Usage::new(&stats, sieve.thought_tokens);
        yield Piece::End(End { reason, usage });
    }
}

/// Translates the parser's events, and finds stop texts in them.
#[derive(Default)]
struct Sieve {
    stop: StopTexts,
    /// Those that may be sent.
    events: Vec<ChatEvent>,
    /// The stop text that was found.
    stopped: Option<String>,
    calls: usize,
    thought_tokens: usize,
}

impl Sieve {
    /// Takes the events of one token. Those after a stop text are dropped.
    fn take(&mut self, events: Vec<AnswerEvent>) {
        let thinks = |event: &AnswerEvent| {
            matches!(event, AnswerEvent::Thought(_) | AnswerEvent::Channel { .. })
        };
        self.thought_tokens += usize::from(events.iter().any(thinks));
        for event in events {
            if let AnswerEvent::Content(text) = event {
                let (clear, stopped) = self.stop.push(&text);
                self.send(ChatEvent::Text(clear));
                if stopped.is_some() {
                    self.stopped = stopped;
                    return;
                }
                continue;
            }
            // A stop text is within one piece of content.
            self.flush();
            match event {
                AnswerEvent::Content(_) => {}
                // Other channels are the model's own notes.
                AnswerEvent::Thought(text) | AnswerEvent::Channel { text, .. } => {
                    self.send(ChatEvent::Thought(text));
                }
                AnswerEvent::ToolCall(call) => {
                    self.calls += 1;
                    let id = call.id.unwrap_or_else(|| new_id("call_"));
                    self.send(ChatEvent::CallStart { id, name: call.name });
                    self.send(ChatEvent::CallArguments(arguments_text(call.arguments)));
                    self.send(ChatEvent::CallEnd);
                }
                AnswerEvent::BrokenCall(call) => {
                    self.send(ChatEvent::Malformed { text: call.text, reason: call.reason });
                }
            }
        }
    }

    /// Sends the text that was held back.
    fn flush(&mut self) {
        let rest = self.stop.flush();
        self.send(ChatEvent::Text(rest));
    }

    fn send(&mut self, event: ChatEvent) {
        let is_empty = match &event {
            ChatEvent::Text(text) | ChatEvent::Thought(text) => text.is_empty(),
            _ => false,
        };
        if !is_empty {
            self.events.push(event);
        }
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
