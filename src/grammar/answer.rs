//! The rules of an answer, and their compilation for a vocabulary.

use std::sync::{Arc, OnceLock};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};

use super::fault::fault;
use super::state::{AnswerConstraint, CallRule, Ids};
use super::tools::{Marks, call_grammar};
use super::vocabulary::token_environment;
use super::{gbnf, literal};
use crate::error::{Error, Result};
use crate::generate::Constraint;
use crate::text::{Tokenizer, Tool};

/// Whitespace between the parts of a JSON text: a space, or a line and its indentation. Without a
/// limit a model could write spaces forever.
const WHITESPACE: &str = "\\x20|\\n\\x20{0,40}";

/// Marks between the turns of a conversation.
const BORDERS: [&str; 4] = ["<|turn>", "<turn|>", "<|tool_response>", "<tool_response|>"];

/// The form of an answer's content.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// A JSON object.
    JsonObject,
    /// JSON of a schema (<https://json-schema.org>, draft 2020-12). llguidance's documentation
    /// names the keywords that have an effect. Others are errors.
    JsonSchema(Value),
    /// A grammar in llguidance's dialect of Lark.
    Lark(String),
    /// A grammar of llama.cpp.
    Gbnf(String),
}

impl Format {
    /// A grammar in either language. Only GBNF defines rules with `::=`.
    pub fn grammar(text: String) -> Format {
        match text.contains("::=") {
            true => Format::Gbnf(text),
            false => Format::Lark(text),
        }
    }

    fn compile(&self) -> Result<TopLevelGrammar> {
        Ok(match self {
            Format::JsonObject => json_grammar(json!({"type": "object"}))?,
            Format::JsonSchema(schema) => json_grammar(schema.clone())?,
            Format::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
            Format::Gbnf(text) => TopLevelGrammar::from_lark(gbnf::to_lark(text)?),
        })
    }
}

fn json_grammar(schema: Value) -> Result<TopLevelGrammar> {
    let mut schema = match schema {
        Value::Object(fields) => fields,
        Value::Bool(true) => Map::new(),
        other => return Err(Error::Input(format!("a JSON schema must be an object, not {other}"))),
    };
    let options = schema.entry("x-guidance").or_insert_with(|| json!({}));
    match options {
        Value::Object(options) => {
            options.entry("whitespace_pattern").or_insert_with(|| WHITESPACE.into());
        }
        _ => return Err(Error::Input("x-guidance of a JSON schema must be an object".into())),
    }
    Ok(TopLevelGrammar::from_json_schema(Value::Object(schema)))
}

/// Whether the model calls a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// If it wants to.
    #[default]
    Auto,
    /// Never.
    None,
    /// At least one.
    Required,
    /// This one.
    Named(String),
}

/// What an answer may be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerRules {
    /// `None`: any text.
    pub format: Option<Format>,
    pub tools: Vec<Tool>,
    pub tool_choice: ToolChoice,
    /// At most one call.
    pub single_call: bool,
    /// Thoughts may come before the content.
    pub thinking: bool,
}

/// Compiles rules for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    marks: CallMarks,
    channel: (Option<u32>, Option<u32>),
    turn: Option<u32>,
    borders: Vec<u32>,
    vocab_size: usize,
}

/// Ids of the marks of calls. `None` where the vocabulary has no such token.
struct CallMarks {
    open: Option<u32>,
    close: Option<u32>,
    quote: Option<u32>,
}

/// Rules that are compiled. Several answers may have the same.
pub struct CompiledRules {
    content: Option<Matcher>,
    call: CallRule,
    ids: Arc<Ids>,
    thinking: bool,
    turn: Option<u32>,
}

impl Grammars {
    /// Grammars of a model with `vocab_size` logits. Reads the whole vocabulary.
    ///
    /// Errors: the vocabulary has no end token, or cannot be used.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize, eos_ids: &[u32]) -> Result<Grammars> {
        let known = |id: &&u32| (**id as usize) < vocab_size;
        let Some(&end) = eos_ids.iter().find(known) else {
            return Err(Error::Input("a grammar needs a token that ends answers".into()));
        };
        let environment = token_environment(tokenizer, vocab_size, end);
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| fault(&e))?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        let id = |spelling| tokenizer.id_of(spelling).filter(|id| known(&id));
        Ok(Grammars {
            factory,
            marks: CallMarks {
                open: id("<|tool_call>"),
                close: id("<tool_call|>"),
                quote: id("<|\"|>"),
            },
            channel: (id("<|channel>"), id("<channel|>")),
            turn: id("<|turn>"),
            borders: BORDERS.into_iter().filter_map(id).collect(),
            vocab_size,
        })
    }

    /// Compiles rules. `None` if they allow every answer.
    ///
    /// Errors: a format or schema that cannot be compiled, with the reason. Also a tool that does
    /// not exist, or a required call where the vocabulary has no marks of calls.
    pub fn compile(&self, rules: &AnswerRules, eos_ids: &[u32]) -> Result<Option<CompiledRules>> {
        let call = self.call_rule(rules)?;
        if rules.format.is_none() && matches!(call, CallRule::Free) {
            return Ok(None);
        }
        let content = match &rules.format {
            Some(format) => Some(self.matcher(format.compile()?)?),
            None => None,
        };
        Ok(Some(CompiledRules {
            content,
            call,
            ids: Arc::new(Ids {
                call_open: self.marks.open,
                call_close: self.marks.close,
                channel_open: self.channel.0,
                channel_close: self.channel.1,
                borders: self.borders.clone(),
                eos: eos_ids.to_vec(),
                vocab_size: self.vocab_size,
            }),
            thinking: rules.thinking,
            turn: self.turn,
        }))
    }

    fn call_rule(&self, rules: &AnswerRules) -> Result<CallRule> {
        let chosen: Vec<&Tool> = match &rules.tool_choice {
            ToolChoice::None => return Ok(CallRule::Forbidden),
            ToolChoice::Named(name) => {
                let named: Vec<&Tool> =
                    rules.tools.iter().filter(|tool| tool.name == *name).collect();
                if named.is_empty() {
                    return Err(Error::Input(format!("tool_choice: no tool is named {name:?}")));
                }
                named
            }
            ToolChoice::Auto | ToolChoice::Required => rules.tools.iter().collect(),
        };
        let is_required = !matches!(rules.tool_choice, ToolChoice::Auto);
        if chosen.is_empty() {
            return match is_required {
                true => Err(Error::Input("tool_choice: a call is required of no tools".into())),
                false => Ok(CallRule::Free),
            };
        }
        let (Some(_), Some(close)) = (self.marks.open, self.marks.close) else {
            return match is_required {
                true => Err(Error::Input(
                    "tool_choice: the model's vocabulary has no tool calls".into(),
                )),
                false => Ok(CallRule::Free),
            };
        };
        let quote = self.marks.quote.map_or_else(|| literal::text("<|\"|>"), literal::token);
        let marks = Marks { close: literal::token(close), quote };
        let grammar = TopLevelGrammar::from_lark(call_grammar(&chosen, &marks)?);
        let calls = Box::new(self.matcher(grammar)?);
        Ok(CallRule::Armed { calls, is_required, is_single: rules.single_call })
    }

    fn matcher(&self, grammar: TopLevelGrammar) -> Result<Matcher> {
        let parser = self.factory.create_parser(grammar).map_err(|error| fault(&error))?;
        Ok(Matcher::new(Ok(parser)))
    }
}

impl CompiledRules {
    /// The constraint of one answer to `prompt`. It begins in the prompt's final state, such as
    /// within an open channel.
    pub fn constraint(&self, prompt: &[u32]) -> Box<dyn Constraint> {
        let turn = prompt.iter().rposition(|&id| Some(id) == self.turn).unwrap_or(0);
        let last = prompt[turn..]
            .iter()
            .rev()
            .copied()
            .find(|&id| [self.ids.channel_open, self.ids.channel_close].contains(&Some(id)));
        let in_thought = last.is_some() && last == self.ids.channel_open;
        Box::new(AnswerConstraint::new(
            self.content.clone(),
            self.call.clone(),
            Arc::clone(&self.ids),
            self.thinking,
            in_thought,
        ))
    }
}

/// Grammars that are made at their first use.
#[derive(Default)]
pub struct LazyGrammars(OnceLock<Result<Grammars, String>>);

impl LazyGrammars {
    /// The grammars, from the arguments of [`Grammars::new`] at the first use.
    ///
    /// Errors: those of [`Grammars::new`].
    pub fn get(
        &self,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        eos_ids: &[u32],
    ) -> Result<&Grammars> {
        let make = || Grammars::new(tokenizer, vocab_size, eos_ids).map_err(|e| e.to_string());
        self.0.get_or_init(make).as_ref().map_err(|reason| Error::Input(reason.clone()))
    }
}
