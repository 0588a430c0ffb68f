//! Text assets of a Hugging Face directory.

use serde::Deserialize;
use serde_json::Value;

use super::{add_id, sampling};
use crate::{
    Error, Result,
    config::json::{self, Fields},
    text::{TextAssets, Vocabulary},
};

/// Collects the assets; `read` gives the bytes of a file of the checkpoint, `None` if there is none.
///
/// Errors: what `read` fails with, [`Error::Config`], [`Error::Tokenizer`], [`Error::Template`].
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
    let (bos_id, eos_ids) = special_ids(&[Some(generation), Some(config), config.object("text_config")?], || {
        NamedTokens::read(tokenizer, tokenizer_json.as_deref())
    })?;
    Ok(TextAssets {
        vocabulary: tokenizer_json.map(Vocabulary::TokenizerJson),
        chat_template,
        bos_id,
        eos_ids,
        // Gemma's tokenizer classes add it unless they are told not to.
        add_bos: tokenizer.flag("add_bos_token")?.unwrap_or(true),
        sampling: sampling(generation.number("temperature")?, generation.size("top_k")?, generation.number("top_p")?)?,
    })
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

/// bos and every eos id: those that the configs give by number; failing that, those that the
/// tokenizer gives by name.
fn special_ids(configs: &[Option<Fields>], named: impl Fn() -> Result<NamedTokens>) -> Result<(Option<u32>, Vec<u32>)> {
    let (mut bos, mut eos) = (None, Vec::new());
    for config in configs.iter().flatten() {
        bos = bos.or(ids(*config, "bos_token_id")?.first().copied());
        for id in ids(*config, "eos_token_id")? {
            add_id(&mut eos, id);
        }
    }
    if bos.is_none() || eos.is_empty() {
        let named = named()?;
        bos = bos.or(named.bos);
        if eos.is_empty() {
            eos = named.eos;
        }
    }
    Ok((bos, eos))
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

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl NamedTokens {
    fn read(tokenizer: Fields, tokenizer_json: Option<&[u8]>) -> Result<Self> {
        let Some(bytes) = tokenizer_json else { return Ok(NamedTokens::default()) };
        let TokenizerFile { added_tokens } =
            json::parse(bytes).map_err(|error| Error::Tokenizer(format!("tokenizer.json: {error}")))?;
        let find = |key: &str| {
            // Either the text itself or an object that holds it.
            let text = tokenizer.get(key).and_then(|token| token.as_str().or(token["content"].as_str()))?;
            added_tokens.iter().find(|token| token.content == text).map(|token| token.id)
        };
        let mut eos = Vec::new();
        ["eos_token", "eot_token"].into_iter().filter_map(find).for_each(|id| add_id(&mut eos, id));
        Ok(NamedTokens { bos: find("bos_token"), eos })
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
            ("config.json", r#"{"eos_token_id": 1, "text_config": {"eos_token_id": [7, 1], "bos_token_id": 2}}"#),
            ("generation_config.json", r#"{"eos_token_id": [1, 106], "top_k": 64, "top_p": 0.95, "temperature": 1}"#),
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
                r#"{"bos_token": "<bos>", "eos_token": {"content": "<eos>"}, "eot_token": "<turn|>", "add_bos_token": false}"#,
            ),
            (
                "tokenizer.json",
                r#"{"added_tokens": [{"id": 2, "content": "<bos>"}, {"id": 1, "content": "<eos>"}, {"id": 106, "content": "<turn|>"}]}"#,
            ),
        ])
        .unwrap();
        assert_eq!((assets.bos_id, assets.eos_ids), (Some(2), vec![1, 106]));
        assert!(!assets.add_bos);
        assert!(matches!(assets.vocabulary, Some(Vocabulary::TokenizerJson(_))));
    }

    #[test]
    fn templates_in_order_of_preference() {
        let list =
            r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
        let text = r#"{"chat_template": "S"}"#;
        let template = |files: &[(&str, &str)]| assets(files).unwrap().chat_template;
        assert_eq!(template(&[("tokenizer_config.json", list)]).as_deref(), Some("D"));
        assert_eq!(template(&[("tokenizer_config.json", text)]).as_deref(), Some("S"));
        assert_eq!(template(&[("tokenizer_config.json", text), ("chat_template.jinja", "J")]).as_deref(), Some("J"));
        assert_eq!(template(&[]), None);
    }

    #[test]
    fn bad_values_are_named() {
        for (file, text, part) in [
            ("config.json", r#"{"eos_token_id": -1}"#, "eos_token_id"),
            ("config.json", r#"{"eos_token_id": [1, "x"]}"#, "eos_token_id"),
            ("generation_config.json", r#"{"top_p": 2}"#, "top_p"),
            ("generation_config.json", r#"{"temperature": -1}"#, "temperature"),
            ("tokenizer_config.json", r#"{"#, "tokenizer_config.json"),
            ("tokenizer_config.json", r#"{"chat_template": 3}"#, "chat_template"),
        ] {
            let message = assets(&[(file, text)]).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
