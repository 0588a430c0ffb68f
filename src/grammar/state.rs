//! The state of a constrained answer: thoughts, content, calls.

use std::sync::Arc;

use llguidance::Matcher;

use super::fault::fault;
use crate::error::{Error, Result};
use crate::generate::Constraint;

/// Ids that change the state.
pub(super) struct Ids {
    pub call_open: Option<u32>,
    pub call_close: Option<u32>,
    pub channel_open: Option<u32>,
    pub channel_close: Option<u32>,
    /// Marks that would end thoughts without closing their channel.
    pub borders: Vec<u32>,
    pub eos: Vec<u32>,
    pub vocab_size: usize,
}

/// The rule for tool calls.
pub(super) enum CallRule {
    /// Calls have any form.
    Free,
    Forbidden,
    /// The token that opens a call arms this grammar.
    Armed {
        calls: Box<Matcher>,
        is_required: bool,
        is_single: bool,
    },
}

impl Clone for CallRule {
    fn clone(&self) -> CallRule {
        match self {
            CallRule::Free => CallRule::Free,
            CallRule::Forbidden => CallRule::Forbidden,
            CallRule::Armed { calls, is_required, is_single } => CallRule::Armed {
                calls: Box::new(calls.as_ref().clone()),
                is_required: *is_required,
                is_single: *is_single,
            },
        }
    }
}

/// The part of the answer that is being written.
enum State {
    /// Nothing of the content yet. Thoughts may come if `may_think`.
    Start {
        may_think: bool,
    },
    Thought,
    /// Content by its grammar.
    Content,
    /// Content of any form.
    Free,
    Call(Box<Matcher>),
    /// After a call that was required, may be the only one, or replaces a format's content.
    AfterCall,
}

/// The constraint of one answer.
pub(super) struct AnswerConstraint {
    content: Option<Matcher>,
    call: CallRule,
    ids: Arc<Ids>,
    state: State,
    /// The allowed tokens, unless all are.
    mask: Option<Vec<u32>>,
}

impl AnswerConstraint {
    pub fn new(
        content: Option<Matcher>,
        call: CallRule,
        ids: Arc<Ids>,
        thinking: bool,
        in_thought: bool,
    ) -> AnswerConstraint {
        let required = matches!(call, CallRule::Armed { is_required: true, .. });
        let state = match content.is_some() || required {
            false => State::Free,
            true if in_thought => State::Thought,
            true => State::Start { may_think: thinking },
        };
        AnswerConstraint { content, call, ids, state, mask: None }
    }

    fn is_required(&self) -> bool {
        matches!(self.call, CallRule::Armed { is_required: true, .. })
    }

    fn is_single(&self) -> bool {
        matches!(self.call, CallRule::Armed { is_single: true, .. })
    }

    fn is_armed(&self) -> bool {
        matches!(self.call, CallRule::Armed { .. })
    }

    /// A mask of no tokens but these.
    fn only(&self, ids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut mask = vec![0; self.ids.vocab_size.div_ceil(32)];
        ids.into_iter().for_each(|id| set(&mut mask, id, true));
        mask
    }

    /// A mask of all tokens but these.
    fn all_but(&self, ids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut mask = vec![u32::MAX; self.ids.vocab_size.div_ceil(32)];
        ids.into_iter().for_each(|id| set(&mut mask, id, false));
        mask
    }

    /// The mask of the content's grammar.
    fn content_mask(&mut self) -> Result<Vec<u32>> {
        let Some(content) = &mut self.content else { return Ok(self.only([])) };
        let mut mask = matcher_mask(content)?;
        let may_end = content.is_accepting().map_err(|error| fault(&error))?;
        self.ids.eos.iter().for_each(|&id| set(&mut mask, id, may_end));
        Ok(mask)
    }

    fn compute(&mut self) -> Result<Option<Vec<u32>>> {
        let ids = Arc::clone(&self.ids);
        Ok(match &mut self.state {
            State::Free => match self.call {
                CallRule::Forbidden => ids.call_open.map(|open| self.all_but([open])),
                _ => None,
            },
            State::Thought => {
                let banned = ids.eos.iter().chain(&ids.borders).copied();
                let banned = banned.chain(ids.call_open).chain(ids.channel_open);
                Some(self.all_but(banned))
            }
            State::Call(calls) => Some(matcher_mask(calls)?),
            State::Content => Some(self.content_mask()?),
            State::AfterCall => {
                let open = ids.call_open.filter(|_| !self.is_single());
                Some(self.only(ids.eos.iter().copied().chain(open)))
            }
            State::Start { may_think } => {
                let thought =
                    ids.channel_open.filter(|_| *may_think && ids.channel_close.is_some());
                let mut mask = match self.is_required() {
                    true => self.only([]),
                    false => self.content_mask()?,
                };
                let call = ids.call_open.filter(|_| self.is_armed());
                thought.into_iter().chain(call).for_each(|id| set(&mut mask, id, true));
                Some(mask)
            }
        })
    }

    /// The grammar of a call that `token` opens, if it does.
    fn opened(&self, token: u32) -> Option<State> {
        match &self.call {
            CallRule::Armed { calls, .. } if Some(token) == self.ids.call_open => {
                Some(State::Call(Box::new(calls.as_ref().clone())))
            }
            _ => None,
        }
    }

    /// The next state, and whether nothing may follow.
    fn advance(&mut self, token: u32) -> Result<bool> {
        if self.ids.eos.contains(&token) {
            return Ok(true);
        }
        match &mut self.state {
            State::Free | State::AfterCall => {
                if let Some(call) = self.opened(token) {
                    self.state = call;
                }
            }
            State::Thought => {
                if Some(token) == self.ids.channel_close {
                    self.state = State::Start { may_think: false };
                }
            }
            State::Start { may_think: true } if Some(token) == self.ids.channel_open => {
                self.state = State::Thought;
            }
            State::Start { .. } => match self.opened(token) {
                Some(call) => self.state = call,
                None => {
                    self.state = State::Content;
                    return self.consume_content(token);
                }
            },
            State::Content => return self.consume_content(token),
            State::Call(calls) => {
                calls.consume_token(token).map_err(|error| fault(&error))?;
                if Some(token) == self.ids.call_close {
                    let is_free =
                        self.content.is_none() && !self.is_required() && !self.is_single();
                    self.state = if is_free { State::Free } else { State::AfterCall };
                }
            }
        }
        Ok(false)
    }

    fn consume_content(&mut self, token: u32) -> Result<bool> {
        let Some(content) = &mut self.content else {
            return Err(Error::Input(format!("token {token} is no part of a required call")));
        };
        content.consume_token(token).map_err(|error| fault(&error))?;
        Ok(content.is_stopped())
    }
}

impl Constraint for AnswerConstraint {
    fn prepare(&mut self) -> Result<()> {
        self.mask = self.compute()?;
        Ok(())
    }

    fn allowed(&self) -> Option<&[u32]> {
        self.mask.as_deref()
    }

    fn accept(&mut self, token: u32) -> Result<bool> {
        self.advance(token)
    }
}

fn matcher_mask(matcher: &mut Matcher) -> Result<Vec<u32>> {
    let mask = matcher.compute_mask_or_eos().map_err(|error| fault(&error))?;
    Ok(mask.as_slice().to_vec())
}

/// Sets or clears the bit of an id.
fn set(mask: &mut [u32], id: u32, is_allowed: bool) {
    if let Some(word) = mask.get_mut(id as usize / 32) {
        let bit = 1 << (id % 32);
        *word = if is_allowed { *word | bit } else { *word & !bit };
    }
}
