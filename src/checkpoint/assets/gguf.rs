//! Text assets inside a GGUF file: `tokenizer.ggml.*` and `general.sampling.*`.

use crate::checkpoint::assets::{Recommended, add_id};
use crate::checkpoint::gguf::{container::Gguf, value::Value};
use crate::error::{Error, Result, quoted};
use crate::text::{GgufVocabulary, SamplingDefaults, TextAssets, Vocabulary, VocabularyKind};

/// Tokens that always end an answer, from llama.cpp's list for Gemma.
const END_TOKENS: [&str; 4] = ["<eos>", "<end_of_turn>", "<turn|>", "<|tool_response>"];

/// Collects the assets. A tokenizer.json beside the file replaces the vocabulary inside it.
///
/// Errors: [`Error::Config`], [`Error::Tokenizer`], [`Error::Template`].
pub fn read(file: &Gguf, tokenizer_json: Option<Vec<u8>>) -> Result<TextAssets> {
    let model = file.text("tokenizer.ggml.model").map_err(Error::Tokenizer)?;
    let vocabulary = match (tokenizer_json, model) {
        (Some(json), _) => Some(Vocabulary::TokenizerJson(json)),
        (None, None | Some("none" | "no_vocab")) => None,
        (None, Some(model)) => {
            Some(Vocabulary::Gguf(vocabulary(file, model).map_err(Error::Tokenizer)?))
        }
    };
    let add_bos =
        file.flag("tokenizer.ggml.add_bos_token").map_err(Error::Tokenizer)?.unwrap_or(true);
    Ok(TextAssets {
        chat_template: file
            .text("tokenizer.chat_template")
            .map_err(Error::Template)?
            .map(String::from),
        bos_id: id(file, "tokenizer.ggml.bos_token_id").map_err(Error::Tokenizer)?,
        eos_ids: eos_ids(file).map_err(Error::Tokenizer)?,
        add_bos: add_bos || needs_bos(vocabulary.as_ref())?,
        suppressed_ids: id_list(file, "tokenizer.ggml.suppress_tokens")
            .map_err(Error::Tokenizer)?,
        sampling: sampling_defaults(file)?,
        vocabulary,
    })
}

/// Whether the model needs BOS although its file says that none is added. llama.cpp's converter
/// wrote this for Gemma 4.
fn needs_bos(vocabulary: Option<&Vocabulary>) -> Result<bool> {
    let needed = match vocabulary {
        Some(Vocabulary::Gguf(vocabulary)) => vocabulary.kind()? == VocabularyKind::Merges,
        Some(Vocabulary::TokenizerJson(_)) | None => false,
    };
    if needed {
        log::warn!(
            "prompts begin with BOS, as Gemma 4 needs it: tokenizer.ggml.add_bos_token = false \
             is overridden"
        );
    }
    Ok(needed)
}

fn id(file: &Gguf, key: &str) -> Result<Option<u32>, String> {
    let id = file.unsigned(key)?;
    id.map(|id| id.try_into().map_err(|_| format!("{key} = {id} is not a token id"))).transpose()
}

fn eos_ids(file: &Gguf) -> Result<Vec<u32>, String> {
    let mut ids = Vec::new();
    for key in [
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
    ] {
        if let Some(id) = id(file, key)? {
            add_id(&mut ids, id);
        }
    }
    for id in id_list(file, "tokenizer.ggml.eos_token_ids")? {
        add_id(&mut ids, id);
    }
    let Some(tokens) = file.array("tokenizer.ggml.tokens")? else { return Ok(ids) };
    for (id, token) in (0u32..).zip(tokens.iter()) {
        let Value::String(text) = token else { continue };
        if END_TOKENS.iter().any(|end| end.as_bytes() == text) {
            add_id(&mut ids, id);
        }
    }
    Ok(ids)
}

/// The ids of an array. Some converters write negative ids for none, which are omitted.
fn id_list(file: &Gguf, key: &str) -> Result<Vec<u32>, String> {
    let id = |value: Value| match value {
        Value::Signed(..0) => Some(None),
        value => value.unsigned().and_then(|id| u32::try_from(id).ok()).map(Some),
    };
    Ok(decode(file, key, id)?.into_iter().flatten().collect())
}

fn vocabulary(file: &Gguf, model: &str) -> Result<GgufVocabulary, String> {
    let key = "tokenizer.ggml.tokens";
    let tokens: Vec<String> = decode(file, key, |value| value.text().map(String::from))?;
    if tokens.is_empty() {
        return Err(format!("{key} is missing or empty"));
    }
    let scores =
        decode(file, "tokenizer.ggml.scores", |value| value.float().map(|score| score as f32))?;
    let token_types = decode(file, "tokenizer.ggml.token_type", |value| match value {
        Value::Signed(value) => value.try_into().ok(),
        value => value.unsigned().and_then(|value| value.try_into().ok()),
    })?;
    for (what, len) in [("scores", scores.len()), ("token_type", token_types.len())] {
        if len != 0 && len != tokens.len() {
            return Err(format!(
                "tokenizer.ggml.{what} has {len} entries for {} tokens",
                tokens.len()
            ));
        }
    }
    let mut vocabulary = GgufVocabulary {
        model: model.into(),
        pre: file.text("tokenizer.ggml.pre")?.unwrap_or_default().into(),
        tokens,
        scores,
        token_types,
        merges: decode(file, "tokenizer.ggml.merges", |value| value.text().map(String::from))?,
        unknown_id: id(file, "tokenizer.ggml.unknown_token_id")?,
        add_space_prefix: false,
    };
    vocabulary.add_space_prefix = match file.flag("tokenizer.ggml.add_space_prefix")? {
        Some(add) => add,
        None => prefixes_spaces(&vocabulary),
    };
    let is_renamed =
        model != "gemma4" && vocabulary.kind().is_ok_and(|kind| kind == VocabularyKind::Merges);
    if is_renamed {
        let pre = quoted(&vocabulary.pre);
        log::info!(
            "the vocabulary is read as gemma4's, for it has merges and pre-tokenizer {pre}; the \
             file says {}",
            quoted(model)
        );
    }
    Ok(vocabulary)
}

/// Whether text gets a space in front where the file does not say. llama.cpp does that for
/// SentencePiece's vocabularies. Gemma's tokenizers do not, and Ollama leaves the key out for them.
fn prefixes_spaces(vocabulary: &GgufVocabulary) -> bool {
    let is_scored = vocabulary.kind().is_ok_and(|kind| kind == VocabularyKind::Scores);
    if is_scored && vocabulary.is_gemma() {
        log::info!(
            "no space is put in front of text, as Gemma's tokenizer does: add_space_prefix is not \
             in the file"
        );
        return false;
    }
    is_scored
}

/// All elements of the array at `key`. It is empty if there is no array.
fn decode<T>(
    file: &Gguf,
    key: &str,
    convert: impl Fn(Value) -> Option<T>,
) -> Result<Vec<T>, String> {
    let Some(array) = file.array(key)? else { return Ok(Vec::new()) };
    let element = |(index, value)| {
        convert(value).ok_or_else(|| format!("{key}: entry {index} cannot be used"))
    };
    array.iter().enumerate().map(element).collect()
}

fn sampling_defaults(file: &Gguf) -> Result<SamplingDefaults> {
    let float = |key: &str| file.float(&format!("general.sampling.{key}")).map_err(Error::Config);
    // A penalty on the last 0 tokens is none.
    let penalizes = float("penalty_last_n")? != Some(0.0);
    Recommended {
        temperature: float("temp")?,
        top_k: float("top_k")?,
        top_p: float("top_p")?,
        min_p: float("min_p")?,
        repetition_penalty: float("penalty_repeat")?.filter(|_| penalizes),
    }
    .check()
}
