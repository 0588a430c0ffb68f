//! Text assets of a Hugging Face directory.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::checkpoint::assets::{Recommended, add_id};
use crate::error::{Error, Result};
use crate::json::{self, Fields};
use crate::text::{SamplingDefaults, TextAssets, Vocabulary};

/// Collects the assets. `read` gives the bytes of a file of the checkpoint, or `None` if there is
/// none.
///
/// Errors: those of `read`, [`Error::Config`], [`Error::Tokenizer`], [`Error::Template`].
pub fn read(read: impl Fn(&str) -> Result<Option<Vec<u8>>>) -> Result<TextAssets> {
    let json = |name: &str| match read(name)? {
        Some(bytes) => parse(name, &bytes),
        None => Ok(Value::Object(Default::default())),
    };
    let (config, generation, tokenizer) =
        (json("config.json")?, json("generation_config.json")?, json("tokenizer_config.json")?);
    let config = Fields::of(&config, "config.json")?;
    let generation = Fields::of(&generation, "generation_config.json")?;
    let tokenizer = Fields::of(&tokenizer, "tokenizer_config.json")?;
    let tokenizer_json = read("tokenizer.json")?;
    let chat_template = match read("chat_template.jinja")? {
        Some(bytes) => Some(utf8("chat_template.jinja", bytes)?),
        None => chat_template(tokenizer)?,
    };
    let named = NamedTokens::read(tokenizer, tokenizer_json.as_deref())?;
    let configs = [Some(generation), Some(config), config.object("text_config")?];
    let (bos_id, eos_ids) = special_ids(&configs, named)?;
    Ok(TextAssets {
        chat_template,
        bos_id,
        eos_ids,
        add_bos: add_bos(tokenizer.flag("add_bos_token")?, bos_id, tokenizer_json.as_deref())?,
        suppressed_ids: suppressed_ids(generation),
        vocabulary: tokenizer_json.map(Vocabulary::TokenizerJson),
        sampling: sampling(generation)?,
    })
}

/// Whether a prompt begins with BOS. Gemma's tokenizer classes add it by default. transformers uses
/// tokenizer.json alone.
fn add_bos(flag: Option<bool>, bos: Option<u32>, tokenizer_json: Option<&[u8]>) -> Result<bool> {
    if flag != Some(false) {
        return Ok(true);
    }
    let file: TokenizerFile = tokenizer_json.map(tokenizer_file).transpose()?.unwrap_or_default();
    let adds = file.post_processor.adds(bos);
    if adds {
        log::warn!(
            "prompts begin with BOS, as tokenizer.json says: add_bos_token = false is overridden"
        );
    }
    Ok(adds)
}

/// `suppress_tokens` without values that are no token ids.
fn suppressed_ids(generation: Fields) -> Vec<u32> {
    let key = "suppress_tokens";
    let Some(value) = generation.get(key) else { return Vec::new() };
    let list = value.as_array().map(Vec::as_slice);
    let ids = |list: &[Value]| list.iter().map(|id| id.as_i64()).collect::<Option<Vec<i64>>>();
    match list.and_then(ids) {
        // Whisper's -1 stands for a default list.
        Some(ids) => ids.into_iter().filter_map(|id| u32::try_from(id).ok()).collect(),
        None => {
            log::warn!("generation_config.json: {key} is not a list of token ids and is left out");
            Vec::new()
        }
    }
}

/// Sampling that generation_config.json recommends.
fn sampling(generation: Fields) -> Result<SamplingDefaults> {
    let number = |key: &str| {
        let number = generation.get(key).map(Value::as_f64);
        if number == Some(None) {
            log::warn!("generation_config.json: {key} is not a number and is left out");
        }
        number.flatten()
    };
    let defaults = Recommended {
        temperature: number("temperature"),
        top_k: number("top_k"),
        top_p: number("top_p"),
        min_p: number("min_p"),
        repetition_penalty: number("repetition_penalty"),
    }
    .check()?;
    // transformers then ignores all other values except the penalty.
    match generation.get("do_sample").and_then(Value::as_bool) {
        Some(false) => Ok(SamplingDefaults { temperature: Some(0.0), ..defaults }),
        _ => Ok(defaults),
    }
}

fn parse(name: &str, bytes: &[u8]) -> Result<Value> {
    json::parse(bytes).map_err(|error| Error::Config(format!("{name}: {error}")))
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::Template(format!("{name} is not UTF-8")))
}

/// `chat_template` of tokenizer_config.json: a string, or a list of named templates.
fn chat_template(tokenizer: Fields) -> Result<Option<String>> {
    match tokenizer.get("chat_template") {
        Some(Value::Array(templates)) => {
            let default = templates.iter().find(|template| template["name"] == "default");
            Ok(default.and_then(|template| template["template"].as_str()).map(String::from))
        }
        _ => Ok(tokenizer.text("chat_template")?.map(String::from)),
    }
}

/// bos and every eos id, from the configs' numbers and from the tokenizer's names.
fn special_ids(configs: &[Option<Fields>], named: NamedTokens) -> Result<(Option<u32>, Vec<u32>)> {
    let (mut bos, mut eos) = (None, Vec::new());
    for config in configs.iter().flatten() {
        bos = bos.or(ids(*config, "bos_token_id")?.first().copied());
        for id in ids(*config, "eos_token_id")? {
            add_id(&mut eos, id);
        }
    }
    for id in named.eos {
        add_id(&mut eos, id);
    }
    Ok((bos.or(named.bos), eos))
}

/// A token id or a list of them.
fn ids(config: Fields, key: &str) -> Result<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let found = match config.get(key) {
        None => Some(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(id).collect(),
        Some(value) => id(value).map(|id| vec![id]),
    };
    found.ok_or_else(|| Error::Config(format!("{key} is neither a token id nor a list of them")))
}

/// Special tokens that tokenizer_config.json names by their text.
#[derive(Default)]
struct NamedTokens {
    bos: Option<u32>,
    eos: Vec<u32>,
}

#[derive(Deserialize, Default)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    post_processor: PostProcessor,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

/// The special tokens that tokenizer.json adds around a text.
#[derive(Deserialize, Default)]
#[serde(transparent)]
struct PostProcessor(Value);

impl PostProcessor {
    /// Whether it puts `bos` first.
    fn adds(&self, bos: Option<u32>) -> bool {
        let steps = match self.0["processors"].as_array() {
            Some(steps) => steps.as_slice(),
            None => std::slice::from_ref(&self.0),
        };
        steps.iter().any(|step| {
            let first = step["single"][0]["SpecialToken"]["id"].as_str();
            let ids = first.map(|token| &step["special_tokens"][token]["ids"]);
            ids.is_some_and(|ids| bos.is_some() && ids[0].as_u64() == bos.map(u64::from))
        })
    }
}

fn tokenizer_file(bytes: &[u8]) -> Result<TokenizerFile> {
    json::parse(bytes).map_err(|error| Error::Tokenizer(format!("tokenizer.json: {error}")))
}

/// The pieces of tokenizer.json, for a token that is not an added one.
#[derive(Deserialize)]
struct PiecesFile {
    model: PiecesModel,
}

#[derive(Deserialize)]
struct PiecesModel {
    vocab: HashMap<String, u32>,
}

impl NamedTokens {
    fn read(tokenizer: Fields, tokenizer_json: Option<&[u8]>) -> Result<Self> {
        let Some(bytes) = tokenizer_json else { return Ok(NamedTokens::default()) };
        let text = |key: &str| {
            // Either the text itself or an object that holds it.
            tokenizer.get(key).and_then(|token| token.as_str().or(token["content"].as_str()))
        };
        let (bos, ends) = (text("bos_token"), ["eos_token", "eot_token"].map(text));
        if bos.is_none() && ends == [None, None] {
            return Ok(NamedTokens::default());
        }
        let added = tokenizer_file(bytes)?.added_tokens;
        let find = |text: &str| {
            let added = added.iter().find(|token| token.content == text).map(|token| token.id);
            // The tokenizer reports faults of the vocabulary.
            added.or_else(|| json::parse::<PiecesFile>(bytes).ok()?.model.vocab.get(text).copied())
        };
        let mut eos = Vec::new();
        ends.into_iter().flatten().filter_map(find).for_each(|id| add_id(&mut eos, id));
        Ok(NamedTokens { bos: bos.and_then(find), eos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assets(files: &[(&str, &str)]) -> Result<TextAssets> {
        read(|name| {
            let file = files.iter().find(|(file, _)| *file == name);
            Ok(file.map(|(_, text)| text.as_bytes().to_vec()))
        })
    }

    #[test]
    fn ids_come_from_every_config_once() {
        let assets = assets(&[
            (
                "config.json",
                r#"{"eos_token_id": 1,
                    "text_config": {"eos_token_id": [7, 1], "bos_token_id": 2}}"#,
            ),
            (
                "generation_config.json",
                r#"{"eos_token_id": [1, 106], "top_k": 64, "top_p": 0.95, "temperature": 1}"#,
            ),
        ])
        .unwrap();
        assert_eq!(assets.eos_ids, [1, 106, 7]);
        assert_eq!(assets.bos_id, Some(2));
        assert!(assets.add_bos);
        assert!(assets.vocabulary.is_none());
        assert_eq!((assets.sampling.temperature, assets.sampling.top_k), (Some(1.0), Some(64)));
        assert_eq!(assets.sampling.top_p, Some(0.95));
    }

    #[test]
    fn ids_by_name_where_no_config_numbers_them() {
        let assets = assets(&[
            (
                "tokenizer_config.json",
                r#"{"bos_token": "<bos>", "eos_token": {"content": "<eos>"},
                    "eot_token": "<turn|>", "add_bos_token": false}"#,
            ),
            (
                "tokenizer.json",
                r#"{"added_tokens": [{"id": 2, "content": "<bos>"}, {"id": 1, "content": "<eos>"},
                    {"id": 106, "content": "<turn|>"}]}"#,
            ),
        ])
        .unwrap();
        assert_eq!((assets.bos_id, assets.eos_ids), (Some(2), vec![1, 106]));
        assert!(!assets.add_bos);
        assert!(matches!(assets.vocabulary, Some(Vocabulary::TokenizerJson(_))));
    }

    #[test]
    fn the_tokenizers_ends_join_the_configs() {
        let tokenizer = r#"{"added_tokens": [{"id": 1, "content": "<eos>"}],
            "model": {"vocab": {"<eos>": 1, "<end>": 5}}}"#;
        for (named, expected) in [("<end>", vec![1, 5]), ("<eos>", vec![1]), ("<none>", vec![1])] {
            let config = format!(r#"{{"eos_token": "{named}"}}"#);
            let files = [
                ("config.json", r#"{"eos_token_id": 1}"#),
                ("tokenizer_config.json", config.as_str()),
                ("tokenizer.json", tokenizer),
            ];
            assert_eq!(assets(&files).unwrap().eos_ids, expected, "{named}");
        }
    }

    /// transformers adds BOS if tokenizer.json does.
    #[test]
    fn bos_by_the_post_processor() {
        let single = r#"{"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>"}}],
            "special_tokens": {"<bos>": {"ids": [2]}}}"#;
        let sequence =
            format!(r#"{{"type": "Sequence", "processors": [{{"type": "ByteLevel"}}, {single}]}}"#);
        let with = |flag: &str, processor: &str| {
            let config = format!(r#"{{"add_bos_token": {flag}}}"#);
            let tokenizer = format!(r#"{{"added_tokens": [], "post_processor": {processor}}}"#);
            let files = [
                ("config.json", r#"{"bos_token_id": 2}"#),
                ("tokenizer_config.json", config.as_str()),
                ("tokenizer.json", tokenizer.as_str()),
            ];
            assets(&files).unwrap().add_bos
        };
        assert!(
            with("false", single)
                && with("false", &sequence)
                && with("true", "null")
                && with("null", "null")
        );
        assert!(!with("false", "null"));
    }

    #[test]
    fn generation_values() {
        let generation = |text: &str| assets(&[("generation_config.json", text)]).unwrap();
        let sampling = |text: &str| generation(text).sampling;
        assert_eq!(sampling(r#"{"do_sample": false, "temperature": 0.7}"#).temperature, Some(0.0));
        assert_eq!(sampling(r#"{"do_sample": true, "temperature": 0.0}"#).temperature, Some(0.0));
        assert_eq!(sampling(r#"{"do_sample": null, "temperature": 0.5}"#).temperature, Some(0.5));
        for (top_k, expected) in
            [("-1", Some(0)), ("0", Some(0)), ("64.0", Some(64)), ("null", None), ("\"9\"", None)]
        {
            assert_eq!(sampling(&format!(r#"{{"top_k": {top_k}}}"#)).top_k, expected, "{top_k}");
        }
        let all = sampling(r#"{"top_p": 1.0, "min_p": 0.05, "repetition_penalty": 1.1}"#);
        assert_eq!(
            (all.top_p, all.min_p, all.repetition_penalty),
            (Some(1.0), Some(0.05), Some(1.1))
        );
        assert_eq!(generation(r#"{"suppress_tokens": [7, -1, 3]}"#).suppressed_ids, [7, 3]);
        for none in ["null", "[]", "\"x\"", "[1, \"x\"]"] {
            let text = format!(r#"{{"suppress_tokens": {none}}}"#);
            assert_eq!(generation(&text).suppressed_ids, [0u32; 0], "{none}");
        }
    }

    #[test]
    fn templates_in_order_of_preference() {
        let list = r#"{"chat_template": [{"name": "tool_use", "template": "T"},
            {"name": "default", "template": "D"}]}"#;
        let text = r#"{"chat_template": "S"}"#;
        let template = |files: &[(&str, &str)]| assets(files).unwrap().chat_template;
        assert_eq!(template(&[("tokenizer_config.json", list)]).as_deref(), Some("D"));
        assert_eq!(template(&[("tokenizer_config.json", text)]).as_deref(), Some("S"));
        assert_eq!(
            template(&[("tokenizer_config.json", text), ("chat_template.jinja", "J")]).as_deref(),
            Some("J")
        );
        assert_eq!(template(&[]), None);
    }

    #[test]
    fn bad_values_are_named() {
        for (file, text, part) in [
            ("config.json", r#"{"eos_token_id": -1}"#, "eos_token_id"),
            ("config.json", r#"{"eos_token_id": [1, "x"]}"#, "eos_token_id"),
            ("generation_config.json", r#"{"top_p": 2}"#, "top_p"),
            ("generation_config.json", r#"{"temperature": -1}"#, "temperature"),
            ("generation_config.json", r#"{"min_p": 1.5}"#, "min_p"),
            ("generation_config.json", r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
            ("tokenizer_config.json", r#"{"#, "tokenizer_config.json"),
            ("tokenizer_config.json", r#"{"chat_template": 3}"#, "chat_template"),
        ] {
            let message = assets(&[(file, text)]).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
