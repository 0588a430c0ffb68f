//! Converts tokenizer.json to `tokenizer.ggml.*`, as llama.cpp's converters do for Gemma.

use std::collections::HashMap;

use serde_json::Value;

use crate::checkpoint::gguf::writer::NewValue;
use crate::convert::gguf::metadata::architecture_name;
use crate::error::{Error, Result, quoted};
use crate::json;
use crate::model::config::{Architecture, ModelConfig};
use crate::text::{GgufVocabulary, SamplingDefaults, TextAssets, Tokenizer, Vocabulary};

/// Values of `tokenizer.ggml.token_type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

const SPACE_MARK: &str = "\u{2581}";
/// Control tokens that llama.cpp shows, so that a chat parser receives them.
const VISIBLE: [&str; 7] = [
    "<|channel>",
    "<channel|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
];
/// The scores of vocabularies with merges.
const NO_SCORE: f32 = -1000.0;

/// Texts on which both tokenizers must agree.
const SAMPLES: [&str; 10] = [
    "The quick brown fox jumps over the lazy dog.",
    " leading,  double   triple    and trailing spaces  ",
    "Lines\nand\n\nempty\n\n\n\nones\n, \ttabs\t\tand \r\n returns",
    "fn main() {\n    let x: Vec<u8> = vec![0; 16]; // 0xff != 3.14159e-10\n}\n",
    "Zoë aß naïve Ünïcödé – “quotes” … №5 €20 ½",
    "日本語のテキスト、中文文本。한국어 문장 русский текст العربية हिन्दी ไทย",
    "🙂🚀👩‍👩‍👧 \u{0}\u{7f}\u{200b}\u{feff}",
    "don't we'll I'd they're 1234567890 12,345.67",
    "<div class=\"a\">&amp;</div> [INST] {\"key\": null} $x^2_i$ \\frac{a}{b}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ................ -------- ____",
];

/// All keys about text: vocabulary, special tokens, chat template, sampling.
///
/// Errors: [`Error::Unsupported`] for a tokenizer that these keys cannot describe,
/// [`Error::Tokenizer`] for a broken one.
pub fn keys(config: &ModelConfig, text: &TextAssets) -> Result<Vec<(String, NewValue)>> {
    let mut keys = sampling(&text.sampling);
    let mut put = |key: &str, value: NewValue| keys.push((format!("tokenizer.{key}"), value));
    if let Some(template) = &text.chat_template {
        put("chat_template", NewValue::Text(template.clone()));
    }
    let json = match &text.vocabulary {
        None => {
            put("ggml.model", NewValue::Text("none".into()));
            return Ok(keys);
        }
        Some(Vocabulary::TokenizerJson(json)) => json,
        Some(Vocabulary::Gguf(_)) => {
            return Err(Error::Unsupported("a vocabulary of GGUF, to be written anew".into()));
        }
    };
    let vocabulary = vocabulary(config, json)?;
    check(text, &vocabulary)?;
    let GgufVocabulary {
        model,
        pre,
        tokens,
        scores,
        token_types,
        merges,
        unknown_id,
        add_space_prefix,
    } = vocabulary;
    let pad_id = tokens.iter().position(|token| token == "<pad>").map(|id| id as u32);
    put("ggml.model", NewValue::Text(model));
    if !pre.is_empty() {
        put("ggml.pre", NewValue::Text(pre));
    }
    put("ggml.tokens", NewValue::Texts(tokens));
    if !scores.is_empty() {
        put("ggml.scores", NewValue::F32s(scores));
    }
    put("ggml.token_type", NewValue::I32s(token_types));
    if !merges.is_empty() {
        put("ggml.merges", NewValue::Texts(merges));
    }
    let mut ends = text.eos_ids.iter().copied();
    for (key, id) in [
        ("ggml.bos_token_id", text.bos_id),
        ("ggml.eos_token_id", ends.next()),
        ("ggml.eot_token_id", ends.next()),
        ("ggml.eom_token_id", ends.next()),
        ("ggml.unknown_token_id", unknown_id),
        ("ggml.padding_token_id", pad_id),
    ] {
        if let Some(id) = id {
            put(key, NewValue::U32(id));
        }
    }
    if !text.suppressed_ids.is_empty() {
        // Ids are below 2^31 there.
        let ids = text.suppressed_ids.iter().filter_map(|&id| i32::try_from(id).ok()).collect();
        put("ggml.suppress_tokens", NewValue::I32s(ids));
    }
    put("ggml.add_bos_token", NewValue::Bool(text.add_bos));
    put("ggml.add_space_prefix", NewValue::Bool(add_space_prefix));
    match ends.next() {
        Some(id) => Err(Error::Unsupported(format!(
            "GGUF has names for three ending tokens; {id} is another"
        ))),
        None => Ok(keys),
    }
}

fn sampling(defaults: &SamplingDefaults) -> Vec<(String, NewValue)> {
    let SamplingDefaults { temperature, top_k, top_p, min_p, repetition_penalty } = defaults;
    let values = [
        ("temp", temperature.map(NewValue::F32)),
        ("top_k", top_k.and_then(|k| u32::try_from(k).ok()).map(NewValue::U32)),
        ("top_p", top_p.map(NewValue::F32)),
        ("min_p", min_p.map(NewValue::F32)),
        ("penalty_repeat", repetition_penalty.map(NewValue::F32)),
    ];
    values
        .into_iter()
        .filter_map(|(key, value)| Some((format!("general.sampling.{key}"), value?)))
        .collect()
}

/// Errors unless both tokenizers give the same ids for sample texts and the template with its
/// control tokens.
fn check(text: &TextAssets, vocabulary: &GgufVocabulary) -> Result<()> {
    let original = Tokenizer::new(text)?;
    let written =
        TextAssets { vocabulary: Some(Vocabulary::Gguf(vocabulary.clone())), ..text.clone() };
    let written = Tokenizer::new(&written)?;
    let samples = SAMPLES.map(|sample| (sample, false));
    for (sample, special) in
        samples.into_iter().chain(text.chat_template.as_deref().map(|text| (text, true)))
    {
        if original.encode(sample, special)? != written.encode(sample, special)? {
            let reason = format!(
                "a tokenizer that GGUF cannot describe: {} has other ids there",
                quoted(sample)
            );
            return Err(Error::Unsupported(reason));
        }
    }
    Ok(())
}

/// The vocabulary in llama.cpp's terms. It is byte-level BPE, or SentencePiece's. The latter has
/// scores (Gemma 3) or merges (Gemma 4).
fn vocabulary(config: &ModelConfig, bytes: &[u8]) -> Result<GgufVocabulary> {
    let fault = |reason: &str| Error::Tokenizer(format!("tokenizer.json: {reason}"));
    let json: Value = json::parse(bytes).map_err(|error| fault(&error))?;
    let pieces =
        json["model"]["vocab"].as_object().ok_or_else(|| fault("its model has no vocab"))?;
    let merges = merges(&json["model"]["merges"])?;
    let kind = Kind::of(config, &json)?;
    // Placeholders for unused ids.
    let mut tokens: Vec<String> = (0..config.vocab_size).map(|id| format!("[PAD{id}]")).collect();
    let mut token_types = vec![UNUSED; config.vocab_size];
    let mut set = |id: u64, token: &str, kind: i32| {
        // Ids beyond the embedding are of tokens that the text model lacks, such as images. Gemma's
        // tab has the id of its byte.
        let place = usize::try_from(id).ok().filter(|id| *id < config.vocab_size);
        if let Some(place) = place.filter(|place| token_types[*place] != BYTE) {
            tokens[place] = token.into();
            token_types[place] = kind;
        }
    };
    for (piece, id) in pieces {
        let kind = if kind != Kind::ByteLevel && is_byte(piece) { BYTE } else { NORMAL };
        set(id.as_u64().ok_or_else(|| fault("an id is no number"))?, piece, kind);
    }
    let unknown = json["model"]["unk_token"].as_str();
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(content)) = (added["id"].as_u64(), added["content"].as_str()) else {
            return Err(fault("an added token has no id or content"));
        };
        let kind = match added["special"].as_bool() {
            _ if VISIBLE.contains(&content) && kind == Kind::Merges => USER_DEFINED,
            _ if unknown == Some(content) && kind == Kind::Scores => UNKNOWN,
            Some(true) => CONTROL,
            // llama.cpp would show the space mark. Normal pieces come from merges.
            _ if content.contains(SPACE_MARK) && pieces.contains_key(content) => NORMAL,
            _ => USER_DEFINED,
        };
        set(id, content, kind);
    }
    let unknown_id = unknown
        .or(Some("<unk>"))
        .and_then(|unknown| tokens.iter().position(|token| token == unknown));
    let scores = match kind {
        Kind::ByteLevel => Vec::new(),
        Kind::Merges => vec![NO_SCORE; tokens.len()],
        Kind::Scores => scores(&tokens, &merges),
    };
    let (model, pre) = match kind {
        Kind::ByteLevel => ("gpt2", "gpt-2"),
        Kind::Merges => ("gemma4", ""),
        Kind::Scores => ("llama", "default"),
    };
    Ok(GgufVocabulary {
        model: model.into(),
        pre: pre.into(),
        tokens,
        scores,
        token_types,
        merges: match kind {
            Kind::Scores => Vec::new(),
            _ => merges.iter().map(|(left, right)| format!("{left} {right}")).collect(),
        },
        unknown_id: unknown_id.map(|id| id as u32),
        add_space_prefix: false,
    })
}

/// The method that turns text into tokens.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// GPT-2's alphabet.
    ByteLevel,
    /// Space marks, byte tokens for unknown characters, and merges.
    Merges,
    /// The same with scores instead of merges.
    Scores,
}

impl Kind {
    fn of(config: &ModelConfig, json: &Value) -> Result<Kind> {
        let (normalizer, splitter) = (&json["normalizer"], &json["pre_tokenizer"]);
        let is_byte_level = splitter["type"] == "ByteLevel"
            && splitter["add_prefix_space"] == false
            && splitter["use_regex"].as_bool() != Some(false);
        let marks_spaces = normalizer["type"] == "Replace"
            && normalizer["pattern"]["String"] == " "
            && normalizer["content"] == SPACE_MARK;
        // Spaces have become marks by then, so that splitting at spaces has no effect.
        let splits_nothing = splitter.is_null()
            || (splitter["type"] == "Split" && splitter["pattern"]["String"] == " ");
        match config.architecture {
            _ if normalizer.is_null() && is_byte_level => Ok(Kind::ByteLevel),
            Architecture::Gemma3 if marks_spaces && splits_nothing => Ok(Kind::Scores),
            Architecture::Gemma4 if marks_spaces && splits_nothing => Ok(Kind::Merges),
            _ => {
                let name = architecture_name(config);
                let reason = "tokenizer.json is neither byte-level BPE as GPT-2's nor \
                              SentencePiece's with spaces as marks";
                Err(Error::Unsupported(format!("{reason}, which {name} files have")))
            }
        }
    }
}

/// Pairs, best first: lists of two, or texts separated by a space.
fn merges(json: &Value) -> Result<Vec<(String, String)>> {
    let pair = |merge: &Value| match merge {
        Value::String(text) => {
            text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()))
        }
        pair => Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())),
    };
    let readable = |(left, right): &(String, String)| !left.contains(' ') && !right.contains(' ');
    let list = json.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |merge: &Value| {
        let merged = pair(merge).filter(readable);
        merged.ok_or_else(|| {
            Error::Unsupported(format!("the merge {} in GGUF", quoted(&merge.to_string())))
        })
    };
    list.iter().map(read).collect()
}

/// Scores that order pieces by the merges that make them, like SentencePiece's own scores.
fn scores(tokens: &[String], merges: &[(String, String)]) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, (left, right)) in merges.iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    tokens
        .iter()
        .map(|token| ranks.get(token.as_str()).map_or(0.0, |rank| -(*rank as f32)))
        .collect()
}

/// `<0x41>`
fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{checkpoint::Checkpoint, model::source::TensorSource};

    /// A small vocabulary like Gemma's, with marks for spaces, all bytes, and a few merges.
    fn tokenizer() -> Value {
        let special = ["<pad>", "<eos>", "<bos>", "<unk>", "<|channel>"];
        let pieces = [
            "\n", "\n\n", SPACE_MARK, "▁▁", "h", "e", "l", "o", "he", "ll", "hell", "hello",
            "▁hello",
        ];
        let bytes: Vec<String> = (0..=255u8).map(|byte| format!("<0x{byte:02X}>")).collect();
        let all = special.iter().copied().chain(bytes.iter().map(String::as_str)).chain(pieces);
        let vocab: serde_json::Map<_, _> =
            all.enumerate().map(|(id, token)| (token.to_owned(), id.into())).collect();
        let added = |content: &str, special: bool| {
            json!({ "id": vocab[content], "content": content, "special": special,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false })
        };
        let mut tokens: Vec<Value> = special.iter().map(|token| added(token, true)).collect();
        tokens.extend([added("\n\n", false), added("▁▁", false)]);
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": tokens,
            "post_processor": null,
            "normalizer":
                { "type": "Replace", "pattern": { "String": " " }, "content": SPACE_MARK },
            "pre_tokenizer": { "type": "Split", "pattern": { "String": " " },
                "behavior": "MergedWithPrevious", "invert": false },
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": SPACE_MARK }, "content": " " },
                { "type": "ByteFallback" }, { "type": "Fuse" }] },
            "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>",
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                "ignore_merges": false,
                "vocab": vocab,
                "merges": [["\n", "\n"], ["▁", "▁"], ["h", "e"], ["l", "l"], ["he", "ll"],
                    ["hell", "o"], ["▁", "hello"]] },
        })
    }

    /// A config with this vocabulary size.
    fn config(architecture: Architecture, vocab_size: usize) -> ModelConfig {
        ModelConfig { architecture, vocab_size, ..Checkpoint::demo().unwrap().config().clone() }
    }

    fn text(tokenizer: &Value) -> TextAssets {
        let vocabulary = Some(Vocabulary::TokenizerJson(tokenizer.to_string().into_bytes()));
        TextAssets {
            vocabulary,
            bos_id: Some(2),
            eos_ids: vec![1],
            add_bos: true,
            ..Default::default()
        }
    }

    #[test]
    fn scores_for_gemma_3_and_merges_for_gemma_4() {
        let json = tokenizer();
        for (architecture, model, channel) in [
            (Architecture::Gemma3, "llama", CONTROL),
            (Architecture::Gemma4, "gemma4", USER_DEFINED),
        ] {
            let config = config(architecture, 280);
            let found = vocabulary(&config, json.to_string().as_bytes()).unwrap();
            assert_eq!(
                (found.model.as_str(), found.tokens.len(), found.unknown_id),
                (model, 280, Some(3))
            );
            let kind = |token: &str| {
                found.token_types[found.tokens.iter().position(|other| other == token).unwrap()]
            };
            let types =
                ["<bos>", "<|channel>", "<0x41>", "\n\n", "▁▁", "hello", "[PAD279]"].map(kind);
            assert_eq!(types, [CONTROL, channel, BYTE, USER_DEFINED, NORMAL, NORMAL, UNUSED]);
            assert_eq!(found.merges.len(), if model == "llama" { 0 } else { 7 });
            let keys = keys(&config, &text(&json)).unwrap();
            let value = |key: &str| {
                &keys.iter().find(|(name, _)| *name == format!("tokenizer.ggml.{key}")).unwrap().1
            };
            assert_eq!(value("padding_token_id"), &NewValue::U32(0));
            assert_eq!(value("add_space_prefix"), &NewValue::Bool(false));
        }
        // Tokens beyond the embedding are not of this model.
        let cut =
            vocabulary(&config(Architecture::Gemma3, 270), json.to_string().as_bytes()).unwrap();
        assert_eq!(cut.tokens.len(), 270);
    }

    #[test]
    fn ids_that_would_change() {
        // Scores would make pieces that no merge makes.
        let mut json = tokenizer();
        json["model"]["merges"] = json!([["h", "e"], ["l", "l"]]);
        json["model"]["vocab"]["th"] = 274.into();
        json["model"]["vocab"]["t"] = 275.into();
        let error = keys(&config(Architecture::Gemma3, 280), &text(&json)).unwrap_err().to_string();
        assert!(error.contains("other ids there"), "{error}");
        keys(&config(Architecture::Gemma4, 280), &text(&json)).unwrap();
        let mut prefixed = tokenizer();
        prefixed["normalizer"] = json!({ "type": "Prepend", "prepend": SPACE_MARK });
        let error =
            keys(&config(Architecture::Gemma4, 280), &text(&prefixed)).unwrap_err().to_string();
        assert!(error.contains("neither byte-level BPE"), "{error}");
        let ends = TextAssets { eos_ids: vec![1, 5, 6, 7], ..text(&tokenizer()) };
        assert!(
            keys(&config(Architecture::Gemma4, 280), &ends)
                .unwrap_err()
                .to_string()
                .contains("7 is another")
        );
    }
}
