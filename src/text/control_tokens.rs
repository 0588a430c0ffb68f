//! Control tokens of Gemma's vocabularies by their spelling, because many converters give them the
//! type of text.

/// Spellings of Gemma 3's and Gemma 4's control tokens.
pub(super) const MARKS: [&str; 28] = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<|turn>",
    "<turn|>",
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    "<|\"|>",
    "<|image>",
    "<image|>",
    "<|image|>",
    "<|audio>",
    "<audio|>",
    "<|audio|>",
    "<|video|>",
];

/// The first tokens of all of Gemma's vocabularies, in the order of their ids.
const FIRST: [&str; 4] = ["<pad>", "<eos>", "<bos>", "<unk>"];
/// Only vocabularies of this family's chat models have both turn marks.
const TURNS: [[&str; 2]; 2] = [["<|turn>", "<turn|>"], ["<start_of_turn>", "<end_of_turn>"]];

/// Whether a vocabulary is one of Gemma's. Elsewhere `<pad>` may be plain text.
pub(super) fn is_gemma(id_of: impl Fn(&str) -> Option<u32>) -> bool {
    let begins = (0u32..).zip(FIRST).all(|(id, token)| id_of(token) == Some(id));
    begins || TURNS.iter().any(|turn| turn.iter().all(|mark| id_of(mark).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gemma_is_known_by_its_first_tokens_or_turn_marks() {
        let known = |tokens: &[&str]| {
            is_gemma(|token| tokens.iter().position(|other| *other == token).map(|id| id as u32))
        };
        assert!(known(&["<pad>", "<eos>", "<bos>", "<unk>", "a"]));
        assert!(known(&["a", "<|turn>", "b", "<turn|>"]));
        assert!(known(&["<end_of_turn>", "<start_of_turn>"]));
        assert!(!known(&["a", "<pad>", "<eos>", "<bos>", "<unk>"]));
        assert!(!known(&["<turn|>", "<start_of_turn>", "<pad>"]));
    }
}
