//! Tokenization against llama.cpp. tests/fixtures/text/generate.mjs wrote its ids.

use super::fixtures::{assets, fixture, small_tokenizer, small_vocabulary};
use crate::{llama_cpp, real_model};
use gemma4_wgpu::{
    Error,
    checkpoint::Checkpoint,
    text::{GgufVocabulary, TextAssets, Tokenizer, Vocabulary},
};
use serde_json::{Value, json};

/// Compares with every row of a file that generate.mjs wrote.
fn assert_same_ids(tokenizer: &Tokenizer, reference: &str) {
    llama_cpp::assert_same_ids(tokenizer, &fixture(reference), "literal");
}

fn gguf_error(change: impl FnOnce(&mut GgufVocabulary)) -> String {
    let mut vocabulary = small_vocabulary("gemma4");
    change(&mut vocabulary);
    Tokenizer::new(&assets(Vocabulary::Gguf(vocabulary))).err().unwrap().to_string()
}

/// The small gemma4 vocabulary in the form of the tokenizer.json that Google publishes for Gemma.
fn gemma_json() -> Value {
    let vocabulary = small_vocabulary("gemma4");
    let ids: serde_json::Map<String, Value> = vocabulary
        .tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.clone(), json!(id)))
        .collect();
    let is_added = |kind: i32| kind == 3 || kind == 4;
    let added = vocabulary
        .tokens
        .iter()
        .zip(&vocabulary.token_types)
        .enumerate()
        .filter(|(_, (_, kind))| is_added(**kind));
    let added: Vec<Value> = added
        .map(|(id, (token, kind))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false,
                   "normalized": false, "special": *kind == 3})
        })
        .collect();
    let merges: Vec<Vec<&str>> =
        vocabulary.merges.iter().map(|merge| merge.split(' ').collect()).collect();
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst",
                       "stride": 0},
        "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                          "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                  "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
                  "ignore_merges": false,
                  "vocab": ids, "merges": merges},
    })
}

fn from_json(json: &Value) -> Result<Tokenizer, Error> {
    Tokenizer::new(&assets(Vocabulary::TokenizerJson(json.to_string().into_bytes())))
}

#[test]
fn small_vocabularies_give_llama_cpp_ids() {
    for model in ["llama", "gemma4", "gpt2"] {
        assert_same_ids(&small_tokenizer(model), &format!("small_{model}.json"));
    }
}

#[test]
fn real_vocabulary_gives_llama_cpp_ids() {
    let tokenizer = Tokenizer::new(&real_assets()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 262_144);
    // llama.cpp lets any text contain the marks of images, which its file types as user-defined.
    let is_image = |row: &Value| row["text"].as_str().unwrap().contains("<start_of_image>");
    let rows = fixture("gemma3_270m.json").as_array().unwrap().clone();
    let (images, rows): (Vec<Value>, Vec<Value>) = rows.into_iter().partition(is_image);
    llama_cpp::assert_same_ids(&tokenizer, &Value::Array(rows), "literal");
    for row in &images {
        let ids = |special| tokenizer.encode(row["text"].as_str().unwrap(), special).unwrap();
        assert_eq!(ids(true), llama_cpp::value::<Vec<u32>>(row, "special"));
        let ids = ids(false);
        assert!(!ids.contains(&255_999) && !ids.contains(&256_000));
    }
    // llama.cpp takes `</s>` for an end of generation because of its name.
    // In Gemma's vocabulary it is HTML.
    assert_eq!(tokenizer.encode("</s>", false).unwrap(), [212]);
    for row in fixture("gemma3_270m.json").as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        assert_eq!(
            tokenizer.decode(&tokenizer.encode(text, false).unwrap()),
            text.replace('▁', " ")
        );
    }
}

/// Reads the Gemma 3 270M checkpoint.
fn real_assets() -> TextAssets {
    Checkpoint::open(real_model::path()).unwrap().text_assets().unwrap()
}

#[test]
fn json_and_gguf_agree() {
    let (gguf, json) = (small_tokenizer("gemma4"), from_json(&gemma_json()).unwrap());
    for row in fixture("small_gemma4.json").as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        for special in [false, true] {
            let ids = gguf.encode(text, special).unwrap();
            assert_eq!(json.encode(text, special).unwrap(), ids, "{text:?}");
            assert_eq!(json.decode(&ids), gguf.decode(&ids), "{text:?}");
        }
    }
    assert_eq!(json.vocab_size(), gguf.vocab_size());
}

#[test]
fn added_tokens_may_follow_the_vocabulary() {
    let mut json = gemma_json();
    let count = small_vocabulary("gemma4").tokens.len();
    let added = json["added_tokens"].as_array_mut().unwrap();
    for (offset, (content, special)) in
        [("<control>", true), ("<plain>", false)].into_iter().enumerate()
    {
        added.push(
            json!({"id": count + offset, "content": content, "single_word": false, "lstrip": false,
                          "rstrip": false, "normalized": false, "special": special}),
        );
    }
    let tokenizer = from_json(&json).unwrap();
    let (control, plain) = (count as u32, count as u32 + 1);
    assert_eq!(tokenizer.encode("<control><plain>", true).unwrap(), [control, plain]);
    let literal = tokenizer.encode("<control><plain>", false).unwrap();
    assert!(!literal.contains(&control) && literal.last() == Some(&plain), "{literal:?}");
    assert_eq!(tokenizer.vocab_size(), count + 2);
}

#[test]
fn bos_comes_once() {
    let tokenizer = small_tokenizer("gemma4");
    let the = tokenizer.encode("the", false).unwrap();
    let with_bos = [&[2], the.as_slice()].concat();
    assert_eq!(tokenizer.encode_prompt("the", false).unwrap(), with_bos);
    assert_eq!(tokenizer.encode_prompt("<bos>the", true).unwrap(), with_bos);
    assert_eq!(tokenizer.encode_prompt("", true).unwrap(), [2]);

    let mut assets = assets(Vocabulary::Gguf(small_vocabulary("gemma4")));
    assets.add_bos = false;
    assert_eq!(Tokenizer::new(&assets).unwrap().encode_prompt("the", false).unwrap(), the);
}

#[test]
fn bos_is_known_by_its_spelling() {
    let mut assets = assets(Vocabulary::Gguf(small_vocabulary("gemma4")));
    assets.bos_id = None;
    let tokenizer = Tokenizer::new(&assets).unwrap();
    assert_eq!(tokenizer.encode_prompt("the", false).unwrap()[0], 2);
}

#[test]
fn user_text_cannot_spell_control_tokens() {
    for model in ["llama", "gemma4", "gpt2"] {
        let tokenizer = small_tokenizer(model);
        let text = "<bos><|turn>user<turn|><eos><unk><pad>";
        let literal = tokenizer.encode(text, false).unwrap();
        assert!(literal.iter().all(|&id| !tokenizer.is_special(id)), "{model}: {literal:?}");
        assert_eq!(tokenizer.decode(&literal).trim_start(), text);
        let special = tokenizer.encode(text, true).unwrap();
        assert_eq!(special.iter().filter(|&&id| tokenizer.is_special(id)).count(), 6);
    }
}

#[test]
fn tokens_are_found_by_name() {
    let tokenizer = small_tokenizer("gemma4");
    assert_eq!(tokenizer.id_of("<|turn>"), Some(4));
    assert_eq!(tokenizer.id_of("<tag>"), Some(6));
    assert_eq!(tokenizer.id_of("no such token"), None);
    assert_eq!(tokenizer.token(2).as_deref(), Some("<bos>"));
    assert_eq!(tokenizer.token(1_000_000), None);
    assert!(
        tokenizer.is_special(4) && !tokenizer.is_special(6) && !tokenizer.is_special(1_000_000)
    );
}

#[test]
fn unknown_kinds_are_refused_by_name() {
    let message = gguf_error(|vocabulary| vocabulary.model = "bert".into());
    assert_eq!(message, "unsupported: GGUF tokenizer model \"bert\" (known: llama, gemma4, gpt2)");
    let message = gguf_error(|vocabulary| {
        (vocabulary.model, vocabulary.pre) = ("gpt2".into(), "qwen2".into())
    });
    assert_eq!(message, "unsupported: GGUF pre-tokenizer \"qwen2\" (known: gpt-2, gemma4)");
    let unigram =
        json!({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]]}});
    let message = from_json(&unigram).err().unwrap().to_string();
    assert_eq!(message, "unsupported: tokenizer.json model \"Unigram\" (known: BPE, WordLevel)");
}

#[test]
fn broken_gguf_vocabularies_are_refused() {
    assert!(gguf_error(|vocabulary| vocabulary.tokens.clear()).contains("empty"));
    assert!(gguf_error(|vocabulary| vocabulary.token_types.truncate(5)).contains("5 token types"));
    let scored = |vocabulary: &mut GgufVocabulary| {
        (vocabulary.model, vocabulary.merges) = ("llama".into(), Vec::new());
    };
    assert!(gguf_error(scored).contains("0 scores"));
    assert!(gguf_error(|vocabulary| vocabulary.unknown_id = Some(9999)).contains("9999"));
    assert!(gguf_error(|vocabulary| vocabulary.merges[7] = "a".into()).contains("merge 7"));
    assert!(
        gguf_error(|vocabulary| vocabulary.merges.push("<|turn> <turn|>".into()))
            .contains("not in the vocabulary")
    );
}

#[test]
fn broken_tokenizer_json_is_refused() {
    let message = |change: &dyn Fn(&mut Value)| {
        let mut json = gemma_json();
        change(&mut json);
        from_json(&json).err().unwrap().to_string()
    };
    let merge = |merge: Value| message(&|json| json["model"]["merges"][0] = merge.clone());
    // Twice the longest token, so longer than any token.
    let tokens = small_vocabulary("gemma4").tokens;
    let longest = tokens.iter().max_by_key(|token| token.len()).unwrap();
    for longer in [json!([longest, longest]), json!(format!("{longest} {longest}"))] {
        let message = merge(longer);
        assert!(
            message.contains(&format!("a merge makes {} bytes", 2 * longest.len())),
            "{message}"
        );
    }
    for unknown in [
        json!(["<tag></tag>", "\u{2581}the"]),
        json!(["no", "such"]),
        json!("one"),
        json!([]),
        json!([1.5]),
    ] {
        assert!(!merge(unknown).contains('\n'));
    }
    let prefix = message(&|json| json["model"]["continuing_subword_prefix"] = "##".into());
    assert!(prefix.contains("continuing_subword_prefix"), "{prefix}");
    let added = message(&|json| {
        json["added_tokens"][0] = json!({"id": 700, "content": "<new>", "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    assert!(added.contains("\"<new>\" cannot have id 700"), "{added}");
    assert!(message(&|json| json["decoder"] = json!({"type": "CTC"})).contains("decoder CTC"));
    for bytes in [&b""[..], b"{", b"[]", b"\xFF", b"{\"model\": {\"type\": \"BPE\"}}"] {
        let error =
            Tokenizer::new(&assets(Vocabulary::TokenizerJson(bytes.to_vec()))).err().unwrap();
        assert!(
            matches!(error, Error::Tokenizer(_)) && !error.to_string().contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let mut wrong = assets(Vocabulary::Gguf(small_vocabulary("gemma4")));
    wrong.bos_id = Some(5000);
    assert_eq!(
        Tokenizer::new(&wrong).err().unwrap().to_string(),
        "tokenizer: BOS id 5000 is not in the vocabulary"
    );
    let none = TextAssets::default();
    assert_eq!(
        Tokenizer::new(&none).err().unwrap().to_string(),
        "tokenizer: the checkpoint brings no vocabulary: tokenizer.json is needed \
         (tokenizer.model is not read)"
    );
}

fn from_gguf(vocabulary: GgufVocabulary) -> Tokenizer {
    Tokenizer::new(&assets(Vocabulary::Gguf(vocabulary))).unwrap()
}

/// Names from Ollama's converter for Gemma 4's vocabulary, and other vocabularies with merges.
#[test]
fn merges_tell_the_kind_of_a_vocabulary() {
    let as_ollama = |vocabulary: &mut GgufVocabulary| {
        vocabulary.model = "llama".into();
        vocabulary.scores = (0..vocabulary.tokens.len()).map(|id| id as f32).collect();
        vocabulary.token_types.iter_mut().filter(|kind| **kind == 6).for_each(|kind| *kind = 1);
    };
    let no_pre = |vocabulary: &mut GgufVocabulary| {
        as_ollama(vocabulary);
        vocabulary.pre = "default".into();
    };
    let one_score = |vocabulary: &mut GgufVocabulary| {
        no_pre(vocabulary);
        vocabulary.scores.fill(-1000.0);
    };
    let as_gpt2 = |vocabulary: &mut GgufVocabulary| {
        (vocabulary.model, vocabulary.pre) = ("gpt2".into(), "default".into());
    };
    let changes: [&dyn Fn(&mut GgufVocabulary); 4] = [&as_ollama, &no_pre, &one_score, &as_gpt2];
    for change in changes {
        let mut vocabulary = small_vocabulary("gemma4");
        change(&mut vocabulary);
        assert_same_ids(&from_gguf(vocabulary), "small_gemma4.json");
    }
    // Scores that differ take precedence over merges.
    let mut scored = small_vocabulary("llama");
    scored.merges = vec!["t h".into()];
    assert_same_ids(&from_gguf(scored), "small_llama.json");
}

/// Turn marks are control tokens, whatever type a converter gives them.
#[test]
fn marks_are_control_tokens_by_their_spelling() {
    let text = "<bos><|turn>user\nThe cat<turn|>\n";
    let expected = small_tokenizer("gemma4").encode(text, true).unwrap();
    for kind in [1, 4, 5] {
        let mut vocabulary = small_vocabulary("gemma4");
        vocabulary.token_types[..6].fill(kind);
        let tokenizer = from_gguf(vocabulary);
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected);
        assert_eq!(tokenizer.decode(&expected), "user\nThe cat\n");
        assert!((0..6).all(|id| tokenizer.is_special(id)));
        assert!(!tokenizer.encode("<turn|>", false).unwrap().contains(&5));
    }
    let mut untyped = small_vocabulary("gemma4");
    untyped.token_types.clear();
    assert_eq!(from_gguf(untyped).encode("<|turn><turn|>", true).unwrap(), [4, 5]);
}

/// In a vocabulary that is not Gemma's, `<pad>` may be text.
#[test]
fn spellings_of_other_vocabularies_stay_text() {
    let mut vocabulary = small_vocabulary("gemma4");
    vocabulary.token_types[..6].fill(1);
    vocabulary.tokens[4] = "<start>".into();
    vocabulary.tokens.swap(0, 3);
    vocabulary.unknown_id = Some(0);
    let tokenizer = from_gguf(vocabulary);
    assert!((0..6).all(|id| !tokenizer.is_special(id)));
    assert!(tokenizer.encode("<turn|>", true).unwrap().len() > 1);
}

#[test]
fn marks_of_tokenizer_json_are_control_tokens() {
    let text = "<|turn>user\nThe cat<turn|>\n";
    let original = gemma_json();
    let expected = from_json(&original).unwrap().encode(text, true).unwrap();
    let mut unmarked = original.clone();
    unmarked["added_tokens"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .for_each(|token| token["special"] = false.into());
    let mut missing = original.clone();
    missing["added_tokens"].as_array_mut().unwrap().retain(|token| token["id"].as_u64() < Some(4));
    for json in [unmarked, missing] {
        let tokenizer = from_json(&json).unwrap();
        assert_eq!(tokenizer.encode(text, true).unwrap(), expected);
        assert!([4, 5].iter().all(|&id| tokenizer.is_special(id)));
        assert!(!tokenizer.encode("<turn|>", false).unwrap().contains(&5));
        assert_eq!(tokenizer.decode(&expected), "user\nThe cat\n");
    }
}

/// Of tokens with the same spelling, text becomes the last one. The others can be decoded.
#[test]
fn equal_spellings() {
    for model in ["gemma4", "llama"] {
        let (plain, mut vocabulary) = (small_tokenizer(model), small_vocabulary(model));
        let id = plain.encode("the", false).unwrap()[0];
        let spelling = plain.token(id).unwrap();
        // A token with this spelling comes before it in the vocabulary, and one after it.
        let last = vocabulary.tokens.len() as u32;
        for token in [spelling.as_str(), "<turn|>"] {
            let twin = vocabulary.tokens.iter().position(|other| other == token).unwrap();
            vocabulary.tokens.push(token.into());
            vocabulary.token_types.push(vocabulary.token_types[twin]);
            if model == "llama" {
                vocabulary.scores.push(vocabulary.scores[twin]);
            }
        }
        let tokenizer = from_gguf(vocabulary);
        let moved = |ids: Vec<u32>| -> Vec<u32> {
            ids.into_iter().map(|of| if of == id { last } else { of }).collect()
        };
        for text in ["the", "the cat sat on the mat", "other  mother"] {
            assert_eq!(
                tokenizer.encode(text, false).unwrap(),
                moved(plain.encode(text, false).unwrap())
            );
        }
        assert_eq!(tokenizer.encode("<turn|>", true).unwrap().last(), Some(&(last + 1)));
        assert_eq!(tokenizer.decode(&[id]), tokenizer.decode(&[last]));
        assert_eq!(tokenizer.token(id), tokenizer.token(last));
        assert!(tokenizer.is_special(5) && tokenizer.is_special(last + 1));
        assert_eq!(tokenizer.vocab_size(), plain.vocab_size() + 2);
    }
}
