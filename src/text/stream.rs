//! Streaming decoder: converts single tokens to complete characters.

use crate::text::tokenizer::Tokenizer;

/// Turns token ids into text as they arrive. The joined results of `push` and `flush` equal
/// [`Tokenizer::decode`] of all ids.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Bytes of an incomplete character, at most three between two calls.
    pending: Vec<u8>,
    show_special: bool,
    first: bool,
}

impl<'a> TextStream<'a> {
    /// A stream that omits special tokens (turn marks, BOS, EOS).
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        TextStream { tokenizer, pending: Vec::new(), show_special: false, first: true }
    }

    /// Whether special tokens are printed too, as the vocabulary spells them.
    pub fn show_special(mut self, show: bool) -> Self {
        self.show_special = show;
        self
    }

    /// Takes the next token and returns the text that it completes, which may be empty. Bytes that
    /// cannot become a character give U+FFFD. An id outside the vocabulary gives nothing.
    pub fn push(&mut self, id: u32) -> String {
        if !self.show_special && self.tokenizer.is_special(id) {
            return String::new();
        }
        if self.tokenizer.append_bytes(id, self.first, &mut self.pending) {
            self.first = false;
        }
        self.take_complete()
    }

    /// Ends the text. An incomplete character gives one U+FFFD.
    pub fn flush(&mut self) -> String {
        self.first = true;
        self.cut()
    }

    /// Ends an incomplete character, as [`TextStream::flush`] does, but not the text.
    pub(super) fn cut(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    /// The vocabulary's spelling of token `id`, empty for an unknown one.
    pub(super) fn spelling(&self, id: u32) -> String {
        self.tokenizer.token(id).unwrap_or_default()
    }

    /// Removes everything from `pending` except the beginning of a character that may still be
    /// completed.
    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        let mut chunks = self.pending.utf8_chunks().peekable();
        let mut kept = 0;
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_incomplete(invalid) {
                kept = invalid.len();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        self.pending.drain(..self.pending.len() - kept);
        text
    }
}

/// Whether further bytes could complete `bytes` to a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

impl Tokenizer {
    /// Text of `ids` without special tokens. See [`TextStream`] for bytes that are not UTF-8.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = TextStream::new(self);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.flush());
        text
    }
}
