//! Builds a `tokenizers` pipeline from the vocabulary in a GGUF file. It gives the same ids as
//! llama.cpp.

use std::{cmp::Reverse, collections::HashMap};

use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::error::{Error, Result};
use crate::text::GgufVocabulary;
use crate::text::control_tokens::{MARKS, is_gemma};
use crate::text::pieces::Pieces;
use crate::text::tokenizer_json::one_line;

/// U+2581, the space of SentencePiece vocabularies.
pub(super) const SPACE_MARK: &str = "\u{2581}";

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// Builds the tokenizer and the rule that turns its ids back into bytes.
///
/// Errors: [`Error::Unsupported`] with the name of an unknown tokenizer model or pre-tokenizer.
/// [`Error::Tokenizer`] for a vocabulary that contradicts itself.
pub(super) fn build(vocabulary: &GgufVocabulary) -> Result<(tokenizers::Tokenizer, Pieces)> {
    let ids = index_tokens(vocabulary)?;
    let types = types(vocabulary, &ids);
    let sentence_piece = || Pieces::SentencePiece {
        replace: vec![(SPACE_MARK.into(), " ".into())],
        byte_fallback: true,
    };
    let spaces = || space_normalizer(vocabulary);
    let (merges, normalizer, pre_tokenizer, pieces) = match vocabulary.kind()? {
        Kind::Scores => {
            (merges_of_scores(vocabulary, &ids, &types)?, Some(spaces()?), None, sentence_piece())
        }
        Kind::Merges => {
            let lines = Some(newline_pre_tokenizer()?);
            (stored_merges(vocabulary, &ids, &types)?, Some(spaces()?), lines, sentence_piece())
        }
        Kind::ByteLevel => {
            let words = PreTokenizerWrapper::from(ByteLevel::new(false, true, true));
            (stored_merges(vocabulary, &ids, &types)?, None, Some(words), Pieces::ByteLevel)
        }
    };
    let added = added_tokens(vocabulary, &ids, &types);

    let mut model = BPE::builder().vocab_and_merges(ids, merges).fuse_unk(true);
    if matches!(pieces, Pieces::SentencePiece { .. }) {
        model = model.byte_fallback(true);
    }
    if let Some(token) = vocabulary.unknown_id.and_then(|id| vocabulary.tokens.get(id as usize)) {
        model = model.unk_token(token.clone());
    }
    let mut tokenizer = tokenizers::Tokenizer::new(model.build().map_err(one_line)?);
    tokenizer.with_normalizer(normalizer).map_err(one_line)?;
    tokenizer.with_pre_tokenizer(pre_tokenizer);
    tokenizer.add_tokens(added).map_err(one_line)?;
    Ok((tokenizer, pieces))
}

/// Maps tokens to ids. Among equal tokens the last one counts. Errors: no tokens, arrays whose
/// lengths differ, an unknown_id out of range.
fn index_tokens(vocabulary: &GgufVocabulary) -> Result<Vocab> {
    let count = vocabulary.tokens.len();
    if count == 0 {
        return Err(Error::Tokenizer("the GGUF vocabulary is empty".into()));
    }
    let types = vocabulary.token_types.len();
    if types != 0 && types != count {
        return Err(Error::Tokenizer(format!(
            "{count} tokens but {types} token types in the GGUF vocabulary"
        )));
    }
    if let Some(id) = vocabulary.unknown_id.filter(|&id| id as usize >= count) {
        return Err(Error::Tokenizer(format!(
            "unknown token id {id} in a GGUF vocabulary of {count} tokens"
        )));
    }
    Ok(vocabulary.tokens.iter().cloned().zip(0u32..).collect())
}

/// Tokens whose spelling a later token has too, by id. No text becomes them, but a model may choose
/// them.
pub(super) fn shadowed(
    vocabulary: &GgufVocabulary,
    id_of: impl Fn(&str) -> Option<u32>,
) -> HashMap<u32, String> {
    let tokens = (0u32..).zip(&vocabulary.tokens);
    let shadowed: HashMap<u32, String> = tokens
        .filter(|(id, token)| id_of(token) != Some(*id))
        .map(|(id, token)| (id, token.clone()))
        .collect();
    if let Some((id, token)) = shadowed.iter().min() {
        let last = id_of(token).unwrap_or_default();
        let count = shadowed.len();
        log::warn!(
            "the GGUF vocabulary has {count} spellings twice, such as {token:?} as {id} and \
             {last}: text becomes the last"
        );
    }
    shadowed
}

/// The type of each token. A vocabulary without types has only plain pieces.
///
/// The spelling overrides the file's type for bytes, and in Gemma's vocabularies for control
/// tokens. Some converters give them the type of text.
fn types(vocabulary: &GgufVocabulary, ids: &Vocab) -> Vec<i32> {
    let mut types = match vocabulary.token_types.is_empty() {
        true => vec![NORMAL; vocabulary.tokens.len()],
        false => vocabulary.token_types.clone(),
    };
    if vocabulary.spells_bytes(|token| ids.get(token).copied()) {
        for byte in 0..=u8::MAX {
            if let Some(kind) =
                ids.get(&format!("<0x{byte:02X}>")).and_then(|&id| types.get_mut(id as usize))
            {
                *kind = BYTE;
            }
        }
    }
    if !is_gemma(|token| ids.get(token).copied()) {
        return types;
    }
    let mut overridden = Vec::new();
    for mark in MARKS {
        let kind = ids.get(mark).and_then(|&id| types.get_mut(id as usize));
        let Some(kind) = kind.filter(|kind| !matches!(**kind, CONTROL | UNKNOWN)) else { continue };
        // llama.cpp's own converter gives visible control tokens the user-defined type.
        if *kind != USER_DEFINED {
            overridden.push(mark);
        }
        *kind = CONTROL;
    }
    if !overridden.is_empty() {
        let marks = overridden.join(" ");
        log::warn!("taken as control tokens, which the GGUF vocabulary types as text: {marks}");
    }
    types
}

/// Merges never produce control, unknown and byte tokens, so that text cannot spell them.
fn may_merge(types: &[i32], id: u32) -> bool {
    !types.get(id as usize).is_some_and(|kind| matches!(*kind, UNKNOWN | CONTROL | BYTE))
}

/// Tokens that are matched before merging: user-defined ones always, control ones where the caller
/// wants them.
fn added_tokens(vocabulary: &GgufVocabulary, ids: &Vocab, types: &[i32]) -> Vec<AddedToken> {
    let tokens = (0u32..).zip(&vocabulary.tokens).zip(types);
    tokens
        .filter(|((id, token), kind)| {
            matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED)
                && ids.get(token.as_str()) == Some(id)
        })
        .map(|((_, token), kind)| {
            AddedToken::from(token.as_str(), *kind != USER_DEFINED).normalized(false)
        })
        .collect()
}

/// The method that turns text into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SentencePiece's: space marks, byte tokens for unknown characters, the best score first.
    Scores,
    /// The same with merges (Gemma 4).
    Merges,
    /// GPT-2's alphabet and merges.
    ByteLevel,
}

impl GgufVocabulary {
    /// The method that turns text into tokens. It depends on the file's contents, because
    /// converters disagree on the model's name.
    ///
    /// Errors: [`Error::Unsupported`] with the name of an unknown tokenizer model or pre-tokenizer.
    pub(crate) fn kind(&self) -> Result<Kind> {
        let has_merges = !self.merges.is_empty();
        let id_of =
            |token: &str| self.tokens.iter().position(|other| other == token).map(|id| id as u32);
        let unsupported = |reason: String| Err(Error::Unsupported(reason));
        match self.model.as_str() {
            "gemma4" => Ok(Kind::Merges),
            "llama" | "gpt2" if has_merges && self.pre == "gemma4" => Ok(Kind::Merges),
            "llama" if has_merges && !self.has_scores() => Ok(Kind::Merges),
            "llama" => Ok(Kind::Scores),
            "gpt2" if self.pre == "gpt-2" => Ok(Kind::ByteLevel),
            "gpt2" if has_merges && self.has_no_pre() && self.is_sentence_piece(id_of) => {
                Ok(Kind::Merges)
            }
            "gpt2" => {
                unsupported(format!("GGUF pre-tokenizer \"{}\" (known: gpt-2, gemma4)", self.pre))
            }
            other => unsupported(format!(
                "GGUF tokenizer model \"{other}\" (known: llama, gemma4, gpt2)"
            )),
        }
    }

    /// Whether the tokens are Gemma's.
    pub(crate) fn is_gemma(&self) -> bool {
        is_gemma(|token| self.tokens.iter().position(|other| other == token).map(|id| id as u32))
    }

    /// Whether the file names no pre-tokenizer.
    fn has_no_pre(&self) -> bool {
        matches!(self.pre.as_str(), "" | "default")
    }

    /// Whether the tokens have SentencePiece's spelling: marks for spaces, `<0x41>` for bytes.
    fn is_sentence_piece(&self, id_of: impl Fn(&str) -> Option<u32>) -> bool {
        id_of(SPACE_MARK).is_some() && self.spells_bytes(id_of)
    }

    /// Whether the scores give the order of merging. Some converters write one value for all, or
    /// the ids.
    fn has_scores(&self) -> bool {
        let is_id = |(id, score): (usize, &f32)| *score == id as f32;
        self.scores.len() == self.tokens.len()
            && !self.scores.iter().enumerate().all(is_id)
            && self.scores.iter().any(|score| Some(score) != self.scores.first())
    }

    /// Whether each byte has a token in SentencePiece's spelling.
    fn spells_bytes(&self, id_of: impl Fn(&str) -> Option<u32>) -> bool {
        self.pre != "gpt-2" && id_of("<0x00>").is_some() && id_of("<0xFF>").is_some()
    }
}

/// Spaces become [`SPACE_MARK`]. Each stretch of text gets one in front if the vocabulary says so.
fn space_normalizer(vocabulary: &GgufVocabulary) -> Result<NormalizerWrapper> {
    let replace = Replace::new(" ", SPACE_MARK).map_err(one_line)?;
    if !vocabulary.add_space_prefix {
        return Ok(replace.into());
    }
    Ok(Sequence::new(vec![Prepend::new(SPACE_MARK.into()).into(), replace.into()]).into())
}

/// Gemma 4 in llama.cpp: splits at the borders of runs of newlines, and nowhere else.
fn newline_pre_tokenizer() -> Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex("\n+".into());
    Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(one_line)?.into())
}

/// Merges of a SentencePiece BPE vocabulary, which stores scores instead. Every division of a piece
/// into two pieces is a merge. Pieces with higher scores are merged first. Among equal ones the
/// longer left part comes first, as in Hugging Face's conversion.
fn merges_of_scores(vocabulary: &GgufVocabulary, ids: &Vocab, types: &[i32]) -> Result<Merges> {
    let (count, scores) = (vocabulary.tokens.len(), vocabulary.scores.len());
    if scores != count {
        return Err(Error::Tokenizer(format!(
            "{count} tokens but {scores} scores in the GGUF vocabulary"
        )));
    }
    let is_piece = |text: &str| ids.get(text).is_some_and(|&id| may_merge(types, id));
    let is_reached = |id: &u32| ids.get(vocabulary.tokens[*id as usize].as_str()) == Some(id);
    let mut by_score: Vec<u32> =
        (0u32..).take(count).filter(|id| may_merge(types, *id) && is_reached(id)).collect();
    by_score
        .sort_by(|&a, &b| vocabulary.scores[b as usize].total_cmp(&vocabulary.scores[a as usize]));
    let splits_of = |id: u32| {
        let piece = vocabulary.tokens[id as usize].as_str();
        let splits = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let mut splits: Vec<_> =
            splits.filter(|(left, right)| is_piece(left) && is_piece(right)).collect();
        splits.sort_by_key(|(left, _)| Reverse(left.len()));
        splits.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned()))
    };
    Ok(by_score.into_par_iter().flat_map_iter(splits_of).collect())
}

/// Merges in the file's order, `left right`, best first. Errors: a merge whose parts or result are
/// not in the vocabulary.
fn stored_merges(vocabulary: &GgufVocabulary, ids: &Vocab, types: &[i32]) -> Result<Merges> {
    let read = |(rank, merge): (usize, &String)| {
        let bad = |what: &str| {
            Error::Tokenizer(format!("merge {rank} of the GGUF vocabulary, {merge:?}, {what}"))
        };
        let (left, right) =
            merge.split_once(' ').ok_or_else(|| bad("is not two pieces with a space between"))?;
        let merged = ids.get(format!("{left}{right}").as_str());
        match (ids.contains_key(left) && ids.contains_key(right), merged) {
            (true, Some(&id)) => {
                Ok(may_merge(types, id).then(|| (left.to_owned(), right.to_owned())))
            }
            _ => Err(bad("names a piece that is not in the vocabulary")),
        }
    };
    vocabulary.merges.par_iter().enumerate().filter_map(|merge| read(merge).transpose()).collect()
}
