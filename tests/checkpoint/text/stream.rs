//! The streaming decoder returns only whole characters and loses nothing.

use super::fixtures::small_tokenizer;
use gemma4_wgpu::text::{TextStream, Tokenizer};
use proptest::prelude::*;

/// Pieces that a stream prints. The flushed rest is the last one.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = TextStream::new(tokenizer);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id)).collect();
    pieces.push(stream.flush());
    pieces
}

/// Ids of the byte tokens `<0x..>` of the small vocabularies, which begin at 8.
fn byte_ids(bytes: &[u8]) -> Vec<u32> {
    bytes.iter().map(|&byte| 8 + u32::from(byte)).collect()
}

#[test]
fn characters_come_whole() {
    let tokenizer = small_tokenizer("gemma4");
    assert_eq!(streamed(&tokenizer, &byte_ids("é🙂".as_bytes())), ["", "é", "", "", "", "🙂", ""]);
}

#[test]
fn broken_characters_are_marked_once_they_are_certain() {
    let tokenizer = small_tokenizer("gemma4");
    assert_eq!(streamed(&tokenizer, &byte_ids(b"\xF0\x9F\x99")), ["", "", "", "\u{FFFD}"]);
    assert_eq!(
        streamed(&tokenizer, &byte_ids(b"\xF0\x9Fa\xFFb")),
        ["", "", "\u{FFFD}a", "\u{FFFD}", "b", ""]
    );
}

#[test]
fn special_tokens_are_hidden_unless_asked_for() {
    let tokenizer = small_tokenizer("gemma4");
    let ids = tokenizer.encode("<|turn>the<turn|><tag>", true).unwrap();
    assert_eq!(streamed(&tokenizer, &ids).concat(), "the<tag>");
    let mut shown = TextStream::new(&tokenizer).show_special(true);
    assert_eq!(ids.iter().map(|&id| shown.push(id)).collect::<String>(), "<|turn>the<turn|><tag>");
}

proptest! {
    #[test]
    fn pieces_join_to_the_decoded_text(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        text in ".{0,20}",
    ) {
        let tokenizer = small_tokenizer("gemma4");
        let ids = [byte_ids(&bytes), tokenizer.encode(&text, false).unwrap()].concat();
        let pieces = streamed(&tokenizer, &ids);
        prop_assert_eq!(pieces.concat(), tokenizer.decode(&ids));
        let spelled = [bytes.as_slice(), text.replace('▁', " ").as_bytes()].concat();
        prop_assert_eq!(pieces.concat(), String::from_utf8_lossy(&spelled));
    }

    #[test]
    fn any_ids_decode(ids in prop::collection::vec(0u32..500, 0..60)) {
        for model in ["gemma4", "gpt2"] {
            let tokenizer = small_tokenizer(model);
            prop_assert_eq!(streamed(&tokenizer, &ids).concat(), tokenizer.decode(&ids));
        }
    }

    #[test]
    fn text_survives_the_round_trip(text in "\\PC{0,40}") {
        for model in ["gemma4", "gpt2"] {
            let tokenizer = small_tokenizer(model);
            let expected = if model == "gemma4" { text.replace('▁', " ") } else { text.clone() };
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false).unwrap()), expected);
        }
    }
}
