//! Finds the token that ends a turn in the template, because some configurations lack it.

use crate::text::TextAssets;
use crate::text::message::Message;
use crate::text::render_options::RenderOptions;
use crate::text::template::ChatTemplate;
use crate::text::tokenizer::Tokenizer;

/// An answer that no template contains.
const ANSWER: &str = "answer4e1f";

impl ChatTemplate {
    /// The control token that the template writes after an assistant's answer. `None` if another
    /// text follows, or if rendering fails.
    pub fn turn_end(&self, tokenizer: &Tokenizer) -> Option<u32> {
        let messages = [Message::user("question"), Message::assistant(ANSWER)];
        let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::default() };
        let text = match self.render(&messages, &options) {
            Ok(text) => text,
            Err(error) => {
                log::debug!("the turn's end cannot be read off the template: {error}");
                return None;
            }
        };
        let (_, after) = text.rsplit_once(ANSWER)?;
        let first = *tokenizer.encode(after.trim_start(), true).ok()?.first()?;
        (tokenizer.is_special(first) && Some(first) != tokenizer.bos_id()).then_some(first)
    }
}

/// Every id that ends an answer: the checkpoint's, and the end of a turn in the template.
pub fn stop_ids(
    assets: &TextAssets,
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
) -> Vec<u32> {
    let mut ids = assets.eos_ids.clone();
    let turn_end = template.and_then(|template| template.turn_end(tokenizer));
    if let Some(id) = turn_end.filter(|id| !ids.contains(id)) {
        let token = tokenizer.token(id).unwrap_or_default();
        log::info!(
            "{token} (id {id}) ends an answer: the template writes it there, \
             the checkpoint does not name it"
        );
        ids.push(id);
    }
    ids
}
