//! Answers by a grammar: the tokens that an answer may have, from JSON schemas, grammars and tools.
//!
//! llguidance parses grammars and computes masks of tokens. Gemma's own form of tool calls is a
//! grammar that `tools` writes.

mod answer;
mod fault;
mod gbnf;
mod literal;
mod state;
mod tools;
mod vocabulary;

pub use self::answer::{AnswerRules, CompiledRules, Format, Grammars, LazyGrammars, ToolChoice};
