//! Converts ids back to bytes, one token at a time, so that text can be streamed.

use std::collections::HashMap;

use serde_json::Value;

use crate::error::{Error, Result};

/// How the tokens of a vocabulary spell text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pieces {
    /// Text with replacements (`▁` for a space). `<0xE2>` may be a byte.
    SentencePiece { replace: Vec<(String, String)>, byte_fallback: bool },
    /// GPT-2's alphabet: every character means one byte.
    ByteLevel,
    /// Whole words: a space between any two tokens.
    Words,
}

impl Pieces {
    /// Reads the `decoder` of a tokenizer.json (null for none).
    ///
    /// Errors: [`Error::Unsupported`] with the name of a decoder that cannot decode token by token.
    pub(super) fn from_decoder(decoder: &Value) -> Result<Self> {
        if decoder.is_null() {
            return Ok(Pieces::Words);
        }
        let steps = match decoder["decoders"].as_array() {
            Some(steps) if decoder["type"] == "Sequence" => steps.as_slice(),
            _ => std::slice::from_ref(decoder),
        };
        let (mut replace, mut byte_fallback) = (Vec::new(), false);
        for step in steps {
            match (
                step["type"].as_str(),
                step["pattern"]["String"].as_str(),
                step["content"].as_str(),
            ) {
                (Some("ByteLevel"), ..) if steps.len() == 1 => return Ok(Pieces::ByteLevel),
                (Some("Replace"), Some(from), Some(to)) => {
                    replace.push((from.to_owned(), to.to_owned()))
                }
                (Some("ByteFallback"), ..) => byte_fallback = true,
                (Some("Fuse"), ..) => {}
                (kind, ..) => {
                    let kind = kind.unwrap_or("without a type");
                    return Err(Error::Unsupported(format!(
                        "tokenizer.json decoder {kind} in this place"
                    )));
                }
            }
        }
        Ok(Pieces::SentencePiece { replace, byte_fallback })
    }

    /// Appends the bytes of `token`. `first` is set if no token came before it.
    pub(super) fn append(&self, token: &str, first: bool, bytes: &mut Vec<u8>) {
        match self {
            Pieces::SentencePiece { replace, byte_fallback } => {
                if let Some(byte) = byte_token(token).filter(|_| *byte_fallback) {
                    return bytes.push(byte);
                }
                let text = replace
                    .iter()
                    .fold(token.to_owned(), |text, (from, to)| text.replace(from, to));
                bytes.extend_from_slice(text.as_bytes());
            }
            Pieces::ByteLevel => append_byte_level(token, bytes),
            Pieces::Words => {
                if !first {
                    bytes.push(b' ');
                }
                bytes.extend_from_slice(token.as_bytes());
            }
        }
    }
}

/// The byte of a token such as `<0xE2>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// Maps characters of GPT-2's byte alphabet to bytes. A token with any other character (an added
/// one) is plain text.
fn append_byte_level(token: &str, bytes: &mut Vec<u8>) {
    let alphabet = byte_alphabet();
    match token.chars().map(|c| alphabet.get(&c).copied()).collect::<Option<Vec<u8>>>() {
        Some(decoded) => bytes.extend(decoded),
        None => bytes.extend_from_slice(token.as_bytes()),
    }
}

/// GPT-2's alphabet (`bytes_to_unicode` in its encoder.py). Printable Latin-1 stays the same, and
/// characters from U+0100 on represent the other bytes.
fn byte_alphabet() -> &'static HashMap<char, u8> {
    static ALPHABET: std::sync::OnceLock<HashMap<char, u8>> = std::sync::OnceLock::new();
    ALPHABET.get_or_init(|| {
        let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let printable = (0..=u8::MAX).filter(is_printable).map(|byte| (char::from(byte), byte));
        let others = ('\u{100}'..).zip((0..=u8::MAX).filter(|byte| !is_printable(byte)));
        printable.chain(others).collect()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes_of(pieces: &Pieces, tokens: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, token) in tokens.iter().enumerate() {
            pieces.append(token, index == 0, &mut bytes);
        }
        bytes
    }

    #[test]
    fn gemma_decoder_is_read() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]});
        let pieces = Pieces::from_decoder(&decoder).unwrap();
        assert_eq!(bytes_of(&pieces, &["▁a▁", "<0xE2>", "<0xF>", "<0x0+>"]), b" a \xE2<0xF><0x0+>");
    }

    #[test]
    fn byte_level_alphabet_covers_every_byte() {
        assert_eq!(byte_alphabet().len(), 256);
        let pieces = Pieces::from_decoder(&json!({"type": "ByteLevel"})).unwrap();
        assert_eq!(bytes_of(&pieces, &["Ġhello", "Ċ", "âĤ¬", "中"]), " hello\n€中".as_bytes());
    }

    #[test]
    fn no_decoder_joins_words() {
        let pieces = Pieces::from_decoder(&Value::Null).unwrap();
        assert_eq!(bytes_of(&pieces, &["two", "words"]), b"two words");
    }

    #[test]
    fn unknown_decoder_is_refused_by_name() {
        let error =
            Pieces::from_decoder(&json!({"type": "WordPiece", "prefix": "##"})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unsupported: tokenizer.json decoder WordPiece in this place"
        );
        let regex = json!({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"});
        assert!(Pieces::from_decoder(&regex).is_err());
    }
}
