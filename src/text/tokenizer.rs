//! Text to token ids and back.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tokenizers::{AddedVocabulary, Model, OffsetType, PreTokenizer};

use crate::error::{Error, Result};
#[cfg(feature = "grammar")]
use crate::text::control_tokens;
use crate::text::control_tokens::is_gemma;
use crate::text::marks::{ControlMarks, Part, RenderedPrompt};
use crate::text::pieces::Pieces;
use crate::text::tokenizer_json::{self, one_line};
use crate::text::{TextAssets, Vocabulary, gguf_vocabulary};

/// The tokenizer of a checkpoint.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens, with special ones as plain text.
    literal: AddedVocabulary,
    pieces: Pieces,
    /// Tokens that `inner` lacks, because a later one has the same spelling.
    shadowed: HashMap<u32, String>,
    bos_id: Option<u32>,
    add_bos: bool,
    /// Made at a template's first use.
    marks: OnceLock<Arc<ControlMarks>>,
}

impl Tokenizer {
    /// Builds the tokenizer that a checkpoint describes.
    ///
    /// Errors: [`Error::Tokenizer`] if the vocabulary is missing or broken. [`Error::Unsupported`]
    /// with the name of an unknown kind of tokenizer.
    pub fn new(assets: &TextAssets) -> Result<Self> {
        let (inner, pieces) = match &assets.vocabulary {
            Some(Vocabulary::TokenizerJson(bytes)) => tokenizer_json::load(bytes)?,
            Some(Vocabulary::Gguf(vocabulary)) => gguf_vocabulary::build(vocabulary)?,
            None => {
                return Err(Error::Tokenizer(
                    "the checkpoint brings no vocabulary: tokenizer.json is needed \
                     (tokenizer.model is not read)"
                        .into(),
                ));
            }
        };
        let shadowed = match &assets.vocabulary {
            Some(Vocabulary::Gguf(vocabulary)) => {
                gguf_vocabulary::shadowed(vocabulary, |token| inner.token_to_id(token))
            }
            _ => HashMap::new(),
        };
        // Gemma needs it, even if the file does not name it.
        let spelled = || {
            let id = inner
                .token_to_id("<bos>")
                .filter(|_| is_gemma(|token| inner.token_to_id(token)))?;
            log::info!("<bos> (id {id}) begins prompts, though the checkpoint names no such token");
            Some(id)
        };
        let bos_id = assets.bos_id.or_else(spelled);
        let mut literal = inner.get_added_vocabulary().clone();
        literal.set_encode_special_tokens(true);
        let tokenizer = Tokenizer {
            inner,
            literal,
            pieces,
            shadowed,
            bos_id,
            add_bos: assets.add_bos,
            marks: OnceLock::new(),
        };
        match assets.bos_id {
            Some(id) if tokenizer.token(id).is_none() => {
                Err(Error::Tokenizer(format!("BOS id {id} is not in the vocabulary")))
            }
            _ => Ok(tokenizer),
        }
    }

    /// Ids of `text`, without BOS.
    ///
    /// With `special`, the spelling of a control token (`<start_of_turn>`) becomes that token, as
    /// rendered templates need. Without it, such spellings are plain text, so that a user's text
    /// cannot imitate a turn of the conversation.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let added = if special { self.inner.get_added_vocabulary() } else { &self.literal };
        let mut split = added.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut split).map_err(one_line)?;
        }
        let model = self.inner.get_model();
        split.tokenize(|part| model.tokenize(part.get())).map_err(one_line)?;
        let encoding = split.into_encoding(None, 0, OffsetType::None).map_err(one_line)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Ids of a whole prompt: [`Tokenizer::encode`] with BOS in front if the checkpoint wants one.
    /// A text that already begins with BOS, such as a template's, gets no second one.
    pub fn encode_prompt(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        Ok(self.with_bos(self.encode(text, special)?))
    }

    fn with_bos(&self, mut ids: Vec<u32>) -> Vec<u32> {
        match self.bos_id {
            Some(bos) if self.add_bos && ids.first() != Some(&bos) => ids.insert(0, bos),
            _ => {}
        }
        ids
    }

    /// Ids of a rendered chat template, as [`Tokenizer::encode_prompt`] gives them. Control tokens
    /// that messages spell are plain text. Ordinary text is merged across a message's borders.
    pub fn encode_rendered(&self, prompt: &RenderedPrompt) -> Result<Vec<u32>> {
        if !prompt.has_stand_ins() {
            return self.encode_prompt(&prompt.text(), true);
        }
        let mut ids = Vec::new();
        for part in prompt.parts(&*self.control_marks()?) {
            match part {
                Part::Text(text) => ids.extend(self.encode(&text, false)?),
                Part::Control(spelling) => ids.extend(self.id_of(spelling)),
            }
        }
        Ok(self.with_bos(ids))
    }

    /// The spellings of all control tokens.
    pub(super) fn control_marks(&self) -> Result<Arc<ControlMarks>> {
        if let Some(marks) = self.marks.get() {
            return Ok(Arc::clone(marks));
        }
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let special = added.values().filter(|token| token.special && !token.content.is_empty());
        let spellings: Vec<String> = special.map(|token| token.content.clone()).collect();
        let marks = Arc::new(ControlMarks::new(&spellings)?);
        Ok(Arc::clone(self.marks.get_or_init(|| marks)))
    }

    /// Id of the token spelled exactly `token`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Spelling of token `id` in the vocabulary (`▁the`, `<0x0A>`, `<bos>`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id).or_else(|| self.shadowed.get(&id).cloned())
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true) + self.shadowed.len()
    }

    /// Whether `id` is a control token, which is not a part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        let id = self.shadowed.get(&id).and_then(|token| self.id_of(token)).unwrap_or(id);
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    /// Whether `id` is a control token, also if the file gives it the type of text.
    #[cfg(feature = "grammar")]
    pub fn is_control(&self, id: u32) -> bool {
        let is_mark = |token: String| control_tokens::MARKS.contains(&token.as_str());
        self.is_special(id) || self.token(id).is_some_and(is_mark)
    }

    /// Bytes of the text of token `id` after other tokens, or the spelling of a control token.
    /// `None` for an unknown id.
    #[cfg(feature = "grammar")]
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        if self.is_control(id) {
            return self.token(id).map(String::into_bytes);
        }
        let mut bytes = Vec::new();
        self.append_bytes(id, false, &mut bytes).then_some(bytes)
    }

    /// The token that starts a prompt, if the vocabulary has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// Appends the text of token `id`. `first` is set if no token came before it. Returns false for
    /// an unknown id.
    pub(super) fn append_bytes(&self, id: u32, first: bool, bytes: &mut Vec<u8>) -> bool {
        let token = self.token(id);
        if let Some(token) = &token {
            self.pieces.append(token, first, bytes);
        }
        token.is_some()
    }
}
