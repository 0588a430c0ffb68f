//! Reuses known tokens in a prompt.

use crate::text::tokenizer::Tokenizer;

impl Tokenizer {
    /// `prompt` with the tokens of `known` where both begin with the same text. A model may write a
    /// text in other tokens than the tokenizer. The next prompt repeats the text, and then
    /// continues from the model's tokens. Control tokens must have the same ids.
    pub fn as_known(&self, prompt: Vec<u32>, known: &[u32]) -> Vec<u32> {
        // Tokens of both with the same text.
        let (mut of_known, mut of_prompt) = (0, 0);
        while let Some(more) = self.same(&known[of_known..], &prompt[of_prompt..]) {
            of_known += more.0;
            of_prompt += more.1;
        }
        if known[..of_known] == prompt[..of_prompt] {
            return prompt;
        }
        [&known[..of_known], &prompt[of_prompt..]].concat()
    }

    /// The fewest first tokens that spell the same text. `None` if there are none.
    fn same(&self, a: &[u32], b: &[u32]) -> Option<(usize, usize)> {
        let (first, second) = (a.first()?, b.first()?);
        if first == second {
            return Some((1, 1));
        }
        let (mut bytes_of_a, mut bytes_of_b) = (Vec::new(), Vec::new());
        let (mut of_a, mut of_b) = (0, 0);
        loop {
            let (tokens, count, bytes) = match bytes_of_a.len() <= bytes_of_b.len() {
                true => (a, &mut of_a, &mut bytes_of_a),
                false => (b, &mut of_b, &mut bytes_of_b),
            };
            let id = *tokens.get(*count).filter(|&&id| !self.is_special(id))?;
            *count += 1;
            if !self.append_bytes(id, false, bytes) {
                return None;
            }
            let shared = bytes_of_a.len().min(bytes_of_b.len());
            if bytes_of_a[..shared] != bytes_of_b[..shared] {
                return None;
            }
            if shared > 0 && bytes_of_a.len() == bytes_of_b.len() {
                return Some((of_a, of_b));
            }
        }
    }
}
