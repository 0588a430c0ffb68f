//! Text to token ids and back.

use tokenizers::{AddedVocabulary, Model, OffsetType, PreTokenizer};

use super::{TextAssets, TextStream, Vocabulary, gguf_vocabulary, pieces::Pieces, tokenizer_json};
use crate::{Error, Result, text::tokenizer_json::one_line};

/// The tokenizer of a checkpoint.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The added tokens with the special ones taken as plain text.
    literal: AddedVocabulary,
    pieces: Pieces,
    bos_id: Option<u32>,
    add_bos: bool,
}

impl Tokenizer {
    /// Builds the tokenizer that a checkpoint describes.
    ///
    /// Errors: [`Error::Tokenizer`] without a vocabulary or with a broken one; [`Error::Unsupported`]
    /// naming a kind of tokenizer that is not known here.
    pub fn new(assets: &TextAssets) -> Result<Self> {
        let (inner, pieces) = match &assets.vocabulary {
            Some(Vocabulary::TokenizerJson(bytes)) => tokenizer_json::load(bytes)?,
            Some(Vocabulary::Gguf(vocabulary)) => gguf_vocabulary::build(vocabulary)?,
            None => {
                return Err(Error::Tokenizer(
                    "the checkpoint brings no vocabulary: tokenizer.json is needed (tokenizer.model is not read)"
                        .into(),
                ));
            }
        };
        let mut literal = inner.get_added_vocabulary().clone();
        literal.set_encode_special_tokens(true);
        let tokenizer = Tokenizer { inner, literal, pieces, bos_id: assets.bos_id, add_bos: assets.add_bos };
        match assets.bos_id {
            Some(id) if tokenizer.token(id).is_none() => {
                Err(Error::Tokenizer(format!("BOS id {id} is not in the vocabulary")))
            }
            _ => Ok(tokenizer),
        }
    }

    /// Ids of `text`, without BOS.
    ///
    /// With `special`, the spelling of a control token (`<start_of_turn>`) becomes that token: for
    /// rendered templates. Without it, such spellings are plain text, so that a user's text cannot
    /// pose as a turn of the conversation.
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

    /// Ids of a whole prompt: [`Tokenizer::encode`] with BOS in front if the checkpoint wants one and the
    /// text (a template's, say) does not bring it already.
    pub fn encode_prompt(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, special)?;
        match self.bos_id {
            Some(bos) if self.add_bos && ids.first() != Some(&bos) => ids.insert(0, bos),
            _ => {}
        }
        Ok(ids)
    }

    /// Text of `ids` without special tokens; see [`TextStream`] for bytes that are not UTF-8.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = TextStream::new(self);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text.push_str(&stream.flush());
        text
    }

    /// Id of the token spelled exactly `token`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Spelling of token `id` in the vocabulary (`▁the`, `<0x0A>`, `<bos>`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether `id` is a control token, which is not part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The token that starts a prompt, if the vocabulary has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// Appends what token `id` spells; `first` if no token came before it. False for an unknown id.
    pub(super) fn append_bytes(&self, id: u32, first: bool, bytes: &mut Vec<u8>) -> bool {
        let token = self.token(id);
        if let Some(token) = &token {
            self.pieces.append(token, first, bytes);
        }
        token.is_some()
    }
}
