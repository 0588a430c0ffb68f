//! Text assets inside a GGUF file: `tokenizer.ggml.*` and `general.sampling.*`.

use super::{add_id, sampling};
use crate::{
    Error, Result,
    checkpoint::gguf::{Gguf, Value},
    text::{GgufVocabulary, SamplingDefaults, TextAssets, Vocabulary},
};

/// Tokens that end an answer whatever the metadata says (llama.cpp's list, as far as Gemma has them).
const END_TOKENS: [&str; 4] = ["<eos>", "<end_of_turn>", "<turn|>", "<|tool_response>"];

/// Collects the assets. A tokenizer.json that lies beside the file takes the place of the
/// vocabulary inside.
///
/// Errors: [`Error::Config`], [`Error::Tokenizer`], [`Error::Template`].
pub fn read(file: &Gguf, tokenizer_json: Option<Vec<u8>>) -> Result<TextAssets> {
    let model = file.text("tokenizer.ggml.model").map_err(Error::Tokenizer)?;
    let vocabulary = match (tokenizer_json, model) {
        (Some(json), _) => Some(Vocabulary::TokenizerJson(json)),
        (None, None | Some("none" | "no_vocab")) => None,
        (None, Some(model)) => Some(Vocabulary::Gguf(vocabulary(file, model).map_err(Error::Tokenizer)?)),
    };
    Ok(TextAssets {
        vocabulary,
        chat_template: file.text("tokenizer.chat_template").map_err(Error::Template)?.map(String::from),
        bos_id: id(file, "tokenizer.ggml.bos_token_id").map_err(Error::Tokenizer)?,
        eos_ids: eos_ids(file).map_err(Error::Tokenizer)?,
        add_bos: file.flag("tokenizer.ggml.add_bos_token").map_err(Error::Tokenizer)?.unwrap_or(true),
        sampling: sampling_defaults(file)?,
    })
}

fn id(file: &Gguf, key: &str) -> Result<Option<u32>, String> {
    let id = file.unsigned(key)?;
    id.map(|id| id.try_into().map_err(|_| format!("{key} = {id} is not a token id"))).transpose()
}

fn eos_ids(file: &Gguf) -> Result<Vec<u32>, String> {
    let mut ids = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        if let Some(id) = id(file, key)? {
            add_id(&mut ids, id);
        }
    }
    let Some(tokens) = file.array("tokenizer.ggml.tokens")? else { return Ok(ids) };
    for (id, token) in (0u32..).zip(tokens.iter()) {
        if matches!(token, Value::String(text) if END_TOKENS.iter().any(|end| end.as_bytes() == text)) {
            add_id(&mut ids, id);
        }
    }
    Ok(ids)
}

fn vocabulary(file: &Gguf, model: &str) -> Result<GgufVocabulary, String> {
    let key = "tokenizer.ggml.tokens";
    let tokens: Vec<String> = decode(file, key, |value| value.text().map(String::from))?;
    if tokens.is_empty() {
        return Err(format!("{key} is missing or empty"));
    }
    let scores = decode(file, "tokenizer.ggml.scores", |value| value.float().map(|score| score as f32))?;
    let token_types = decode(file, "tokenizer.ggml.token_type", |value| match value {
        Value::Signed(value) => value.try_into().ok(),
        value => value.unsigned().and_then(|value| value.try_into().ok()),
    })?;
    for (what, len) in [("scores", scores.len()), ("token_type", token_types.len())] {
        if len != 0 && len != tokens.len() {
            return Err(format!("tokenizer.ggml.{what} has {len} entries for {} tokens", tokens.len()));
        }
    }
    Ok(GgufVocabulary {
        model: model.into(),
        pre: file.text("tokenizer.ggml.pre")?.unwrap_or_default().into(),
        tokens,
        scores,
        token_types,
        merges: decode(file, "tokenizer.ggml.merges", |value| value.text().map(String::from))?,
        unknown_id: id(file, "tokenizer.ggml.unknown_token_id")?,
        // llama.cpp's default for SentencePiece-style vocabularies.
        add_space_prefix: file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(model == "llama"),
    })
}

/// All elements of the array at `key`; none if it is not there.
fn decode<T>(file: &Gguf, key: &str, convert: impl Fn(Value) -> Option<T>) -> Result<Vec<T>, String> {
    let Some(array) = file.array(key)? else { return Ok(Vec::new()) };
    let element = |(index, value)| convert(value).ok_or_else(|| format!("{key}: entry {index} cannot be used"));
    array.iter().enumerate().map(element).collect()
}

fn sampling_defaults(file: &Gguf) -> Result<SamplingDefaults> {
    let float = |key: &str| file.float(key).map_err(Error::Config);
    // Negative means off, as 0 does.
    let top_k = float("general.sampling.top_k")?.map(|k| k as usize);
    sampling(float("general.sampling.temp")?, top_k, float("general.sampling.top_p")?)
}
