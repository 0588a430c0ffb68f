//! An answer as a stream of events.

use std::collections::VecDeque;

use crate::backend::Backend;
use crate::error::Result;
use crate::generate::{Generation, SequenceState, TokenStream};
#[cfg(not(target_arch = "wasm32"))]
use crate::text::Message;
use crate::text::{AnswerEvent, AnswerParser, AnswerParts};

/// An answer in progress: a stream of content, thoughts and tool calls. The model computes when an
/// event is taken. A caller that takes no more events ends the answer.
///
/// ```
/// use gemma4_wgpu::{ChatOptions, Message, Model, ModelOptions, text::AnswerEvent};
/// # use gemma4_wgpu::backend::BackendKind;
/// # let on_cpu = ModelOptions { backend: BackendKind::Cpu, ..ModelOptions::default() };
/// # let mut model = Model::open_with("demo", &on_cpu)?;
///
/// let options = ChatOptions {
///     max_new_tokens: std::num::NonZeroUsize::new(4),
///     ..ChatOptions::default()
/// };
/// let mut messages = vec![Message::user("Once upon a time")];
/// let mut answer = model.chat(&messages, &options)?;
/// for event in &mut answer {
///     match event? {
///         AnswerEvent::Content(text) => print!("{text}"),
///         AnswerEvent::ToolCall(call) => eprintln!("wants {}", call.name),
///         _ => {}
///     }
/// }
/// messages.push(answer.message()?);
/// assert_eq!(messages.len(), 2);
/// # Ok::<(), gemma4_wgpu::Error>(())
/// ```
pub struct Answer<'m> {
    backend: &'m mut dyn Backend,
    sequence: &'m mut SequenceState,
    stream: TokenStream,
    /// `None` after the last token.
    parser: Option<AnswerParser<'m>>,
    stop: Box<dyn Fn() -> bool + 'm>,
    events: VecDeque<AnswerEvent>,
    parts: AnswerParts,
}

impl<'m> Answer<'m> {
    pub(super) fn new(
        backend: &'m mut dyn Backend,
        sequence: &'m mut SequenceState,
        stream: TokenStream,
        parser: AnswerParser<'m>,
    ) -> Answer<'m> {
        Answer {
            backend,
            sequence,
            stream,
            parser: Some(parser),
            stop: Box::new(|| false),
            events: VecDeque::new(),
            parts: AnswerParts::default(),
        }
    }

    /// Ends the answer once `stop` returns true. It is called before every chunk of the prompt and
    /// after every token.
    pub fn stop_when(self, stop: impl Fn() -> bool + 'm) -> Answer<'m> {
        Answer { stop: Box::new(stop), ..self }
    }

    /// Ends the content before the first of `texts` in it.
    pub fn stop_at(mut self, texts: Vec<String>) -> Answer<'m> {
        self.parser = self.parser.map(|parser| parser.stop_at(texts));
        self
    }

    /// The next event, `None` after the last one. A browser awaits it. Other programs may use the
    /// answer as an iterator.
    ///
    /// Errors: a failed step. After an error the answer has ended and the context is empty.
    pub async fn next_event(&mut self) -> Option<Result<AnswerEvent>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                self.parts.add(event.clone());
                return Some(Ok(event));
            }
            let parser = self.parser.as_mut()?;
            match self.stream.next(self.backend, self.sequence, &self.stop).await {
                Ok(Some(token)) => {
                    self.events.extend(parser.push(token));
                    if parser.is_stopped() {
                        self.stream.stop();
                    }
                }
                Ok(None) => self.events.extend(self.parser.take()?.finish()),
                Err(error) => {
                    self.parser = None;
                    return Some(Err(error));
                }
            }
        }
    }

    /// The events that were taken, joined, and the tokens with their counts and times.
    pub fn into_parts(self) -> (AnswerParts, Generation) {
        (self.parts, self.stream.into_generation())
    }
}

/// Waits for the rest of the answer.
#[cfg(not(target_arch = "wasm32"))]
impl Answer<'_> {
    /// All content, without thoughts and calls.
    ///
    /// Errors: a failed step.
    pub fn text(self) -> Result<String> {
        self.wait().map(|parts| parts.content)
    }

    /// The whole answer as a message for the next prompt.
    ///
    /// Errors: a failed step.
    pub fn message(self) -> Result<Message> {
        self.wait().map(Message::from)
    }

    fn wait(mut self) -> Result<AnswerParts> {
        self.try_for_each(|event| event.map(|_| ()))?;
        Ok(self.parts)
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Iterator for Answer<'_> {
    type Item = Result<AnswerEvent>;

    /// Waits for [`Answer::next_event`].
    fn next(&mut self) -> Option<Result<AnswerEvent>> {
        pollster::block_on(self.next_event())
    }
}
