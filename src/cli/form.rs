//! The form of answers that the options of `run` require.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};
use crate::grammar::{AnswerRules, CompiledRules, Format, Grammars};
use crate::text::{Processor, Prompt};

/// The form of answers. It begins after the thoughts.
#[derive(Args)]
#[command(next_help_heading = "Form of the answer")]
pub struct FormArgs {
    /// Answer with JSON of the JSON schema in this file
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Answer by the grammar in this file: GBNF, as in llama.cpp, or llguidance's dialect of Lark
    #[arg(long, value_name = "FILE", conflicts_with = "json_schema")]
    grammar: Option<PathBuf>,
}

impl FormArgs {
    /// The rules of the answers to prompts like this one, for a model with `vocab_size` logits.
    ///
    /// Errors: a file that cannot be read or compiled.
    pub fn rules(
        &self,
        processor: &Processor,
        vocab_size: usize,
        prompt: &Prompt,
        thinking: bool,
    ) -> Result<Option<CompiledRules>> {
        let Some(format) = self.format()? else { return Ok(None) };
        let eos_ids = processor.eos_ids(prompt);
        let grammars = Grammars::new(processor.tokenizer(), vocab_size, eos_ids)?;
        let rules = AnswerRules { format: Some(format), thinking, ..AnswerRules::default() };
        grammars.compile(&rules, eos_ids)
    }

    fn format(&self) -> Result<Option<Format>> {
        let read =
            |file: &PathBuf| fs::read_to_string(file).map_err(|source| Error::io(file, source));
        match (&self.json_schema, &self.grammar) {
            (Some(file), _) => {
                let schema = serde_json::from_str(&read(file)?).map_err(|error| {
                    Error::Input(format!("--json-schema {}: {error}", file.display()))
                })?;
                Ok(Some(Format::JsonSchema(schema)))
            }
            (None, Some(file)) => Ok(Some(Format::grammar(read(file)?))),
            (None, None) => Ok(None),
        }
    }
}
