//! tokenizer.json, with checks before and after the `tokenizers` crate reads it.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tokenizers::AddedToken;

use crate::error::{Error, Result};
use crate::text::control_tokens::{MARKS, is_gemma};
use crate::text::pieces::Pieces;

/// The parts of tokenizer.json that are checked here.
#[derive(Deserialize)]
struct Outline {
    model: ModelOutline,
    #[serde(default)]
    decoder: serde_json::Value,
    #[serde(default)]
    added_tokens: Vec<AddedOutline>,
}

#[derive(Deserialize)]
struct ModelOutline {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    vocab: Longest,
    #[serde(default)]
    merges: Longest,
}

#[derive(Deserialize)]
struct AddedOutline {
    id: u32,
    content: String,
}

/// Reads the bytes of a tokenizer.json.
///
/// Errors: [`Error::Tokenizer`] for broken JSON, or for merges outside the vocabulary. Also for
/// added tokens whose ids the `tokenizers` crate would silently change. [`Error::Unsupported`] with
/// the name of a model or decoder.
pub(super) fn load(bytes: &[u8]) -> Result<(tokenizers::Tokenizer, Pieces)> {
    let outline: Outline = serde_json::from_slice(bytes).map_err(|error| in_file(&error))?;
    check_model(&outline.model)?;
    let pieces = Pieces::from_decoder(&outline.decoder)?;
    let mut tokenizer =
        tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| in_file(&error))?;
    for AddedOutline { id, content } in &outline.added_tokens {
        if tokenizer.token_to_id(content) != Some(*id) {
            return Err(in_file(&format!(
                "added token {content:?} cannot have id {id}: ids must follow the vocabulary"
            )));
        }
    }
    let marks = unmarked(&tokenizer);
    if !marks.is_empty() {
        log::warn!(
            "taken as control tokens, which tokenizer.json has as text: {}",
            marks.join(" ")
        );
        tokenizer = with_marks(tokenizer, bytes, &marks)?;
    }
    Ok((tokenizer, pieces))
}

/// Gemma's control tokens that the file does not mark as such.
fn unmarked(tokenizer: &tokenizers::Tokenizer) -> Vec<&'static str> {
    if !is_gemma(|token| tokenizer.token_to_id(token)) {
        return Vec::new();
    }
    let special = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    let is_text = |mark: &&str| {
        let id = tokenizer.token_to_id(mark);
        id.is_some_and(|id| !special.get(&id).is_some_and(|token| token.special))
    };
    MARKS.into_iter().filter(is_text).collect()
}

/// The tokenizer with `marks` as control tokens. Added tokens cannot be changed after reading.
fn with_marks(
    tokenizer: tokenizers::Tokenizer,
    bytes: &[u8],
    marks: &[&str],
) -> Result<tokenizers::Tokenizer> {
    let known = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    let mut marked = tokenizer.clone();
    if known.values().any(|token| marks.contains(&token.content.as_str())) {
        let mut file: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| in_file(&error))?;
        for added in file["added_tokens"].as_array_mut().into_iter().flatten() {
            if added["content"].as_str().is_some_and(|content| marks.contains(&content)) {
                added["special"] = true.into();
            }
        }
        marked =
            tokenizers::Tokenizer::from_bytes(file.to_string()).map_err(|error| in_file(&error))?;
    }
    let tokens: Vec<AddedToken> =
        marks.iter().map(|mark| AddedToken::from(*mark, true).normalized(false)).collect();
    marked.add_tokens(tokens).map_err(one_line)?;
    Ok(marked)
}

/// Refuses unknown models, and inputs that make the `tokenizers` crate panic. These are merges into
/// tokens longer than any, or shorter than their prefix.
fn check_model(model: &ModelOutline) -> Result<()> {
    if !matches!(model.kind.as_str(), "BPE" | "WordLevel") {
        let kind = &model.kind;
        return Err(Error::Unsupported(format!(
            "tokenizer.json model \"{kind}\" (known: BPE, WordLevel)"
        )));
    }
    if model.continuing_subword_prefix.as_ref().is_some_and(|prefix| !prefix.is_empty()) {
        return Err(Error::Unsupported("tokenizer.json with a continuing_subword_prefix".into()));
    }
    if model.merges.0 > model.vocab.0 {
        return Err(in_file(&format!(
            "a merge makes {} bytes, more than any token has",
            model.merges.0
        )));
    }
    Ok(())
}

/// Bytes of the longest key of a map or the longest merge of a list, without storing any. A merge
/// is `"left right"` or `["left", "right"]`.
#[derive(Default)]
struct Longest(usize);

impl<'de> Deserialize<'de> for Longest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LongestVisitor)
    }
}

struct LongestVisitor;

impl<'de> Visitor<'de> for LongestVisitor {
    type Value = Longest;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a vocabulary or a list of merges")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Longest, A::Error> {
        let mut longest = 0;
        while let Some((TextLen(len), IgnoredAny)) = map.next_entry()? {
            longest = longest.max(len);
        }
        Ok(Longest(longest))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Longest, A::Error> {
        let mut longest = 0;
        while let Some(MergeLen(len)) = list.next_element()? {
            longest = longest.max(len);
        }
        Ok(Longest(longest))
    }
}

/// Bytes of the two parts of a merge.
struct MergeLen(usize);

impl<'de> Deserialize<'de> for MergeLen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MergeLenVisitor)
    }
}

struct MergeLenVisitor;

impl<'de> Visitor<'de> for MergeLenVisitor {
    type Value = MergeLen;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("two pieces with a space between, or a list of two")
    }

    fn visit_str<E>(self, text: &str) -> Result<MergeLen, E> {
        Ok(MergeLen(text.len().saturating_sub(1)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<MergeLen, A::Error> {
        let mut sum = 0;
        while let Some(TextLen(len)) = list.next_element()? {
            sum += len;
        }
        Ok(MergeLen(sum))
    }
}

/// Bytes of a string. A number (a Unigram score) has none.
struct TextLen(usize);

impl<'de> Deserialize<'de> for TextLen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextLenVisitor)
    }
}

struct TextLenVisitor;

impl<'de> Visitor<'de> for TextLenVisitor {
    type Value = TextLen;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<TextLen, E> {
        Ok(TextLen(text.len()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<TextLen, E> {
        Ok(TextLen(0))
    }
}

fn in_file(error: &dyn fmt::Display) -> Error {
    Error::Tokenizer(format!("tokenizer.json: {}", first_line(error)))
}

/// Converts an error of the `tokenizers` crate.
pub(super) fn one_line(error: tokenizers::Error) -> Error {
    Error::Tokenizer(first_line(&error))
}

fn first_line(error: &dyn fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
