//! The choice of the files that make a model.

use crate::checkpoint::part_name::PartName;
use crate::error::{Error, Result};

/// The files that a model of safetensors needs beside its weights, if the repository has them.
const ASSETS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];
const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files to download.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    Files(Vec<String>),
    /// These, and the weight files in the index that is one of them.
    Sharded {
        files: Vec<String>,
        index: String,
    },
}

/// GGUF models among files, each by its first part. Projectors and importance matrices do not
/// count.
pub fn gguf_models<'a>(files: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let is_model = |path: &&str| {
        let name = file_name(path);
        let later_part = PartName::parse(name, "gguf").is_some_and(|part| part.number != 1);
        name.ends_with(".gguf")
            && !name.contains("mmproj")
            && !name.contains("imatrix")
            && !later_part
    };
    let mut models: Vec<&str> = files.filter(is_model).collect();
    models.sort();
    models
}

/// The GGUF models of a quantization tag, as in llama.cpp's `-hf REPO:Q4_K_M`. The tag is a whole
/// part of the path. Case does not matter.
pub fn tagged<'a>(files: impl Iterator<Item = &'a str>, tag: &str) -> Vec<&'a str> {
    let tag = tag.to_ascii_lowercase();
    let has_tag = |path: &&str| {
        let path = path.to_ascii_lowercase();
        path.match_indices(&tag).any(|(at, _)| {
            let before = path[..at].chars().next_back();
            let after = path[at + tag.len()..].chars().next();
            before.is_none_or(|c| "-./".contains(c)) && after.is_some_and(|c| "-./".contains(c))
        })
    };
    if tag.is_empty() || tag.contains(['/', '.']) {
        return Vec::new();
    }
    gguf_models(files).into_iter().filter(has_tag).collect()
}

/// The files of a repository that `pull REPOSITORY[:FILE]` downloads.
///
/// Errors: there is no such file; no file can run; there are several models, which the message
/// lists.
pub fn wanted(repository: &str, files: &[String], file: Option<&str>) -> Result<Wanted> {
    match file {
        None => whole_model(repository, files),
        Some(file) if files.iter().any(|name| name == file) => {
            with_companions(repository, files, file)
        }
        Some(tag) => match tagged(names(files), tag).as_slice() {
            [only] => with_companions(repository, files, only),
            [] => {
                let models = gguf_models(names(files));
                let has = if models.is_empty() {
                    shown(&names(files).collect::<Vec<_>>())
                } else {
                    shown(&models)
                };
                Err(Error::Input(format!("{repository} has no file {tag}; it has {has}")))
            }
            several => {
                let shown = shown(several);
                Err(Error::Input(format!(
                    "{repository}:{tag} may be any of {shown}; take one with {repository}:FILE"
                )))
            }
        },
    }
}

fn whole_model(repository: &str, files: &[String]) -> Result<Wanted> {
    let has = |name: &str| files.iter().any(|file| file == name);
    if has(CONFIG) && (has(SINGLE) || has(INDEX)) {
        let mut files = assets(files);
        return Ok(if has(SINGLE) {
            files.push(SINGLE.into());
            Wanted::Files(files)
        } else {
            files.push(INDEX.into());
            Wanted::Sharded { files, index: INDEX.into() }
        });
    }
    match gguf_models(names(files)).as_slice() {
        [only] => with_companions(repository, files, only),
        [] => Err(Error::Unsupported(format!(
            "{repository} holds neither config.json with model.safetensors (or its index) nor a \
             GGUF model"
        ))),
        several => Err(Error::Input(format!(
            "{repository} holds several GGUF models; take one with {repository}:FILE, or its tag \
             such as Q4_0: {}",
            shown(several)
        ))),
    }
}

/// A file and the files that it needs: other parts, and for safetensors config and tokenizer.
fn with_companions(repository: &str, files: &[String], file: &str) -> Result<Wanted> {
    let mut wanted = Vec::new();
    if file.ends_with(".safetensors") {
        wanted = assets(files);
        wanted.extend(files.iter().filter(|name| *name == INDEX).cloned());
    }
    for part in parts(file) {
        if !files.contains(&part) {
            return Err(Error::Unsupported(format!(
                "{repository}: {file} is split, and part {part} is not there"
            )));
        }
        wanted.push(part);
    }
    Ok(Wanted::Files(wanted))
}

/// All parts of the set that a file belongs to. Only the file itself if its name is not a part's.
fn parts(path: &str) -> Vec<String> {
    let folder = &path[..path.len() - file_name(path).len()];
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    match PartName::parse(file_name(path), extension) {
        Some(part) => {
            (1..=part.count).map(|number| format!("{folder}{}", part.sibling(number))).collect()
        }
        None => vec![path.into()],
    }
}

fn assets(files: &[String]) -> Vec<String> {
    files.iter().filter(|file| ASSETS.contains(&file.as_str())).cloned().collect()
}

fn names(files: &[String]) -> impl Iterator<Item = &str> {
    files.iter().map(String::as_str)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The names, or the first of them that fit a message.
fn shown(names: &[&str]) -> String {
    const MOST: usize = 30;
    let more = if names.len() > MOST {
        format!(" and {} more", names.len() - MOST)
    } else {
        String::new()
    };
    format!("{}{more}", names[..names.len().min(MOST)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    fn files(names: &[&str], file: Option<&str>) -> Vec<String> {
        match wanted("o/n", &list(names), file).unwrap() {
            Wanted::Files(files) | Wanted::Sharded { files, .. } => files,
        }
    }

    fn fault(names: &[&str], file: Option<&str>) -> String {
        wanted("o/n", &list(names), file).unwrap_err().to_string()
    }

    const SHARDED: [&str; 8] = [
        "README.md",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "original/consolidated.00.pth",
        "pytorch_model.bin",
        "tokenizer.json",
    ];
    const GGUF: [&str; 7] = [
        "BF16/m-BF16-00001-of-00002.gguf",
        "BF16/m-BF16-00002-of-00002.gguf",
        "config.json",
        "imatrix_m.gguf",
        "m-Q4_K_M.gguf",
        "m-UD-Q4_K_XL.gguf",
        "mmproj-F16.gguf",
    ];

    #[test]
    fn a_model_and_nothing_else() {
        let wanted = wanted("o/n", &list(&SHARDED), None).unwrap();
        let whole = list(&["config.json", "tokenizer.json", "model.safetensors.index.json"]);
        let index = "model.safetensors.index.json".to_owned();
        assert_eq!(wanted, Wanted::Sharded { files: whole, index });
        let single = [
            "config.json",
            "model.gguf",
            "model.safetensors",
            "model.safetensors.index.json",
            "x.bin",
        ];
        assert_eq!(files(&single, None), ["config.json", "model.safetensors"]);
        assert_eq!(files(&["README.md", "only.gguf", "mmproj-F16.gguf"], None), ["only.gguf"]);
        let message = fault(&["pytorch_model.bin", "config.json"], None);
        assert!(message.contains("neither") && message.contains("o/n"), "{message}");
    }

    #[test]
    fn several_gguf_models_are_listed() {
        let message = fault(&GGUF, None);
        for name in
            ["BF16/m-BF16-00001-of-00002.gguf", "m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf", "o/n:FILE"]
        {
            assert!(message.contains(name), "{name}: {message}");
        }
        assert!(
            !message.contains("mmproj")
                && !message.contains("imatrix")
                && !message.contains("00002-of")
        );
    }

    #[test]
    fn a_file_by_name_or_tag() {
        assert_eq!(files(&GGUF, Some("m-Q4_K_M.gguf")), ["m-Q4_K_M.gguf"]);
        assert_eq!(files(&GGUF, Some("q4_k_m")), ["m-Q4_K_M.gguf"]);
        assert_eq!(files(&GGUF, Some("Q4_K_XL")), ["m-UD-Q4_K_XL.gguf"]);
        let parts = ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"];
        for name in ["BF16", parts[0], parts[1]] {
            assert_eq!(files(&GGUF, Some(name)), parts);
        }
        assert_eq!(files(&GGUF, Some("mmproj-F16.gguf")), ["mmproj-F16.gguf"]);
        let shard = files(&SHARDED, Some("model-00002-of-00002.safetensors"));
        assert_eq!(shard, ["config.json", "tokenizer.json", SHARDED[4], SHARDED[2], SHARDED[3]]);
        for name in ["Q4_K", "Q8_0", "", "other.gguf", "../m-Q4_K_M.gguf"] {
            let message = fault(&GGUF, Some(name));
            assert!(message.contains(&format!("no file {name}; it has BF16/")), "{message}");
        }
        let message = fault(&["a-Q4_0.gguf", "b-Q4_0.gguf"], Some("Q4_0"));
        assert!(message.contains("any of a-Q4_0.gguf, b-Q4_0.gguf"), "{message}");
        let message = fault(&["m-00001-of-00002.gguf"], None);
        assert!(message.contains("part m-00002-of-00002.gguf is not there"), "{message}");
    }
}
