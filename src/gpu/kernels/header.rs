//! What a WGSL file needs and declares, and instances of it.

use crate::gpu::device::source::Access;

pub(super) fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// A fragment or interface that a file needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub word: &'static str,
    /// Of `word<instance>`: the needed instance of the fragment.
    pub instance: Option<&'static str>,
}

impl Need {
    fn of(text: &'static str) -> Self {
        match text.split_once('<') {
            Some((word, rest)) => Need { word, instance: Some(rest.trim_end_matches('>')) },
            None => Need { word: text, instance: None },
        }
    }
}

/// The needs of a file.
#[derive(Default)]
pub(super) struct Header {
    pub needs: Vec<Need>,
    pub constants: Vec<&'static str>,
    pub enables: Vec<&'static str>,
}

impl Header {
    /// Reads the lines `//!` with which a file begins. A word `constants` or `enables` gives the
    /// kind of the words after it.
    pub fn of(text: &'static str) -> Self {
        let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
        let ends = |c: char| !is_word(c) && c != '<' && c != '>';
        let words = lines.flat_map(|line| line.split(ends)).filter(|word| !word.is_empty());
        let mut header = Header::default();
        let mut kind = "needs";
        for word in words {
            match (word, kind) {
                ("needs" | "constants" | "enables", _) => kind = word,
                (_, "constants") => header.constants.push(word),
                (_, "enables") => header.enables.push(word),
                _ => header.needs.push(Need::of(word)),
            }
        }
        header
    }
}

/// Number, name and access of a line `@group(0) @binding(number) var<storage, read> name: …`.
pub(super) fn binding(line: &'static str) -> Option<(&'static str, &'static str, Access)> {
    let (number, rest) = line.strip_prefix("@group(0) @binding(")?.split_once(") ")?;
    let (space, rest) = rest.trim_start_matches("@coherent ").split_once("> ")?;
    let access = match space {
        "var<uniform" => Access::Uniform,
        "var<storage, read" => Access::Read,
        "var<storage, read_write" => Access::ReadWrite,
        _ => return None,
    };
    let (name, _) = rest.split_once(':')?;
    Some((number, name, access))
}

/// Names that a file declares: what follows these words at the beginning of a line.
pub(super) fn declared(text: &'static str) -> impl Iterator<Item = &'static str> {
    let name = |line: &'static str| {
        if let Some((_, name, _)) = binding(line) {
            return Some(name);
        }
        let (word, rest) = line.split_once(' ')?;
        let is_declaration =
            ["fn", "const", "struct", "alias"].contains(&word) || word.starts_with("var<");
        is_declaration.then(|| rest.split(|c| !is_word(c)).next()).flatten()
    };
    text.lines().filter_map(name)
}

/// The name of `word` in an instance: `o_store` or `O_ROWS` in the instance `o`.
pub(super) fn name_in(instance: &str, word: &str) -> String {
    match word.contains(|c: char| c.is_ascii_lowercase()) {
        true => format!("{instance}_{word}"),
        false => format!("{}_{word}", instance.to_uppercase()),
    }
}

/// `text` with other words for those that `replacement` replaces, except for members.
pub(super) fn replace_words(text: &str, replacement: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_word) {
        let word = rest[at..].split(|character| !is_word(character)).next().unwrap_or_default();
        result.push_str(&rest[..at]);
        let is_member = result.ends_with('.');
        match replacement(word).filter(|_| !is_member) {
            Some(other) => result.push_str(&other),
            None => result.push_str(word),
        }
        rest = &rest[at + word.len()..];
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_needs_of_instances() {
        let header =
            Header::of("//! needs: step, product<gate_up>,\n//! constants N\n//! needs: x\n");
        let need = |word, instance| Need { word, instance };
        let expected = [need("step", None), need("product", Some("gate_up"))];
        assert_eq!(header.needs[..2], expected);
        assert_eq!(header.constants, ["N"]);
    }

    #[test]
    fn names_of_an_instance_keep_their_case() {
        assert_eq!(name_in("gate_up", "ROWS"), "GATE_UP_ROWS");
        assert_eq!(name_in("gate_up", "Held"), "gate_up_Held");
    }
}
