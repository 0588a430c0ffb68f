//! The vocabulary inside a GGUF file, rebuilt as a `tokenizers` pipeline that gives llama.cpp's ids.

use std::cmp::Reverse;

use rayon::prelude::*;
use tokenizers::{
    AddedToken, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    models::bpe::{BPE, Merges, Vocab},
    normalizers::{Prepend, Replace, Sequence},
    pre_tokenizers::{byte_level::ByteLevel, split::Split, split::SplitPattern},
};

use super::{GgufVocabulary, pieces::Pieces, tokenizer_json::one_line};
use crate::{Error, Result};

/// U+2581, which stands for a space in SentencePiece vocabularies.
pub(super) const SPACE_MARK: &str = "\u{2581}";

/// Values of `tokenizer.ggml.token_type` that are not plain pieces of text.
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// Builds the tokenizer and the rule that turns its ids back into bytes.
///
/// Errors: [`Error::Unsupported`] naming a tokenizer model or pre-tokenizer that is not known here;
/// [`Error::Tokenizer`] for a vocabulary that contradicts itself.
pub(super) fn build(vocabulary: &GgufVocabulary) -> Result<(tokenizers::Tokenizer, Pieces)> {
    let ids = index_tokens(vocabulary)?;
    let sentence_piece =
        || Pieces::SentencePiece { replace: vec![(SPACE_MARK.into(), " ".into())], byte_fallback: true };
    let (merges, normalizer, pre_tokenizer, pieces) = match vocabulary.model.as_str() {
        "llama" => (merges_of_scores(vocabulary, &ids)?, Some(space_normalizer(vocabulary)?), None, sentence_piece()),
        "gemma4" => {
            let lines = Some(newline_pre_tokenizer()?);
            (stored_merges(vocabulary, &ids)?, Some(space_normalizer(vocabulary)?), lines, sentence_piece())
        }
        "gpt2" if vocabulary.pre == "gpt-2" => {
            let words = PreTokenizerWrapper::from(ByteLevel::new(false, true, true));
            (stored_merges(vocabulary, &ids)?, None, Some(words), Pieces::ByteLevel)
        }
        "gpt2" => return Err(Error::Unsupported(format!("GGUF pre-tokenizer \"{}\" (known: gpt-2)", vocabulary.pre))),
        other => {
            return Err(Error::Unsupported(format!("GGUF tokenizer model \"{other}\" (known: llama, gemma4, gpt2)")));
        }
    };

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
    tokenizer.add_tokens(added_tokens(vocabulary)).map_err(one_line)?;
    Ok((tokenizer, pieces))
}

/// Token to id. Errors: no tokens, two equal tokens, arrays whose lengths differ, an unknown_id out of range.
fn index_tokens(vocabulary: &GgufVocabulary) -> Result<Vocab> {
    let count = vocabulary.tokens.len();
    if count == 0 {
        return Err(Error::Tokenizer("the GGUF vocabulary is empty".into()));
    }
    let types = vocabulary.token_types.len();
    if types != 0 && types != count {
        return Err(Error::Tokenizer(format!("{count} tokens but {types} token types in the GGUF vocabulary")));
    }
    if let Some(id) = vocabulary.unknown_id.filter(|&id| id as usize >= count) {
        return Err(Error::Tokenizer(format!("unknown token id {id} in a GGUF vocabulary of {count} tokens")));
    }
    let mut ids = Vocab::with_capacity(count);
    for (id, token) in (0u32..).zip(&vocabulary.tokens) {
        if let Some(first) = ids.insert(token.clone(), id) {
            return Err(Error::Tokenizer(format!("tokens {first} and {id} of the GGUF vocabulary are both {token:?}")));
        }
    }
    Ok(ids)
}

/// Type of token `id`; a vocabulary without types holds plain pieces only.
fn token_type(vocabulary: &GgufVocabulary, id: u32) -> i32 {
    vocabulary.token_types.get(id as usize).copied().unwrap_or(1)
}

/// Control, unknown and byte tokens never come out of a merge: text must not spell them.
fn may_merge(vocabulary: &GgufVocabulary, id: u32) -> bool {
    !matches!(token_type(vocabulary, id), UNKNOWN | CONTROL | BYTE)
}

/// Tokens that are matched before any merging: user-defined ones everywhere, control ones where the
/// caller asks for them.
fn added_tokens(vocabulary: &GgufVocabulary) -> Vec<AddedToken> {
    let is_added = |&(id, _): &(u32, &String)| matches!(token_type(vocabulary, id), UNKNOWN | CONTROL | USER_DEFINED);
    (0u32..)
        .zip(&vocabulary.tokens)
        .filter(is_added)
        .map(|(id, token)| {
            AddedToken::from(token.as_str(), token_type(vocabulary, id) != USER_DEFINED).normalized(false)
        })
        .collect()
}

/// Spaces become [`SPACE_MARK`]; each stretch of text gets one in front if the vocabulary says so.
fn space_normalizer(vocabulary: &GgufVocabulary) -> Result<NormalizerWrapper> {
    let replace = Replace::new(" ", SPACE_MARK).map_err(one_line)?;
    if !vocabulary.add_space_prefix {
        return Ok(replace.into());
    }
    Ok(Sequence::new(vec![Prepend::new(SPACE_MARK.into()).into(), replace.into()]).into())
}

/// Gemma 4 in llama.cpp: runs of newlines are apart from everything else, nothing else is split.
fn newline_pre_tokenizer() -> Result<PreTokenizerWrapper> {
    let pattern = SplitPattern::Regex("\n+".into());
    Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(one_line)?.into())
}

/// Merges of a SentencePiece BPE vocabulary, which stores scores instead: every way to write a piece as
/// two pieces is a merge, and the piece with the higher score is merged first. Ties go to the longer
/// left part, as in Hugging Face's conversion.
fn merges_of_scores(vocabulary: &GgufVocabulary, ids: &Vocab) -> Result<Merges> {
    let (count, scores) = (vocabulary.tokens.len(), vocabulary.scores.len());
    if scores != count {
        return Err(Error::Tokenizer(format!("{count} tokens but {scores} scores in the GGUF vocabulary")));
    }
    let is_piece = |text: &str| ids.get(text).is_some_and(|&id| may_merge(vocabulary, id));
    let mut by_score: Vec<u32> = (0u32..).take(count).filter(|&id| may_merge(vocabulary, id)).collect();
    by_score.sort_by(|&a, &b| vocabulary.scores[b as usize].total_cmp(&vocabulary.scores[a as usize]));
    let splits_of = |id: u32| {
        let piece = vocabulary.tokens[id as usize].as_str();
        let splits = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at));
        let mut splits: Vec<_> = splits.filter(|(left, right)| is_piece(left) && is_piece(right)).collect();
        splits.sort_by_key(|(left, _)| Reverse(left.len()));
        splits.into_iter().map(|(left, right)| (left.to_owned(), right.to_owned()))
    };
    Ok(by_score.into_par_iter().flat_map_iter(splits_of).collect())
}

/// Merges as the file lists them, `left right`, best first. Errors: a merge of or into something that is
/// not in the vocabulary.
fn stored_merges(vocabulary: &GgufVocabulary, ids: &Vocab) -> Result<Merges> {
    let read = |(rank, merge): (usize, &String)| {
        let bad = |what: &str| Error::Tokenizer(format!("merge {rank} of the GGUF vocabulary, {merge:?}, {what}"));
        let (left, right) = merge.split_once(' ').ok_or_else(|| bad("is not two pieces with a space between"))?;
        let merged = ids.get(format!("{left}{right}").as_str());
        match (ids.contains_key(left) && ids.contains_key(right), merged) {
            (true, Some(&id)) => Ok(may_merge(vocabulary, id).then(|| (left.to_owned(), right.to_owned()))),
            _ => Err(bad("names a piece that is not in the vocabulary")),
        }
    };
    vocabulary.merges.par_iter().enumerate().filter_map(|merge| read(merge).transpose()).collect()
}
