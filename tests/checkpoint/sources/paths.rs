//! The modules that each file of `src` uses, read from its text.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::Path,
};

use regex::Regex;

/// A module's path from the crate's root, which is empty.
pub type Module = Vec<String>;

/// A path in a file, and the module that defines its item.
pub struct Use {
    pub line: usize,
    pub path: String,
    pub defined_in: Module,
}

/// The text of all modules, without comments, string literals and tests.
pub struct Sources {
    files: BTreeMap<Module, (String, Text)>,
}

struct Text {
    /// Absolute paths that the file uses, with their lines.
    used: Vec<(usize, Module)>,
    /// Names that it re-exports, and modules of which it re-exports everything.
    passed_on: BTreeMap<String, Module>,
    globs: Vec<Module>,
    /// Names that it defines.
    defined: HashSet<String>,
}

/// A module for a message.
pub fn file_of(module: &[String]) -> String {
    format!("crate::{}", module.join("::"))
}

impl Sources {
    /// Reads `src` without tests and the program's entry.
    pub fn read() -> Sources {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let inside = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = inside.strip_suffix(".rs").filter(|name| *name != "main")
                {
                    let mut module: Module = name.split('/').map(str::to_owned).collect();
                    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
                        module.pop();
                    }
                    if !module.iter().any(|part| part == "tests") {
                        let text = Text::new(&module, &fs::read_to_string(&path).unwrap());
                        files.insert(module, (format!("src/{inside}"), text));
                    }
                }
            }
        }
        assert!(files.len() > 100, "{} files", files.len());
        Sources { files }
    }

    pub fn file(&self, module: &[String]) -> &str {
        &self.files[module].0
    }

    /// The modules that each module uses.
    pub fn uses(&self) -> impl Iterator<Item = (&Module, Vec<Use>)> {
        self.files.iter().map(|(module, (_, text))| {
            let uses = text.used.iter().map(|(line, path)| Use {
                line: *line,
                path: file_of(path),
                defined_in: self.defined_in(path, 0),
            });
            (module, uses.filter(|used| used.defined_in != *module).collect())
        })
    }

    /// The module that defines the item of a path, through re-exports.
    fn defined_in(&self, path: &[String], depth: usize) -> Module {
        let len = (0..=path.len()).rev().find(|&len| self.files.contains_key(&path[..len]));
        let (module, rest) = path.split_at(len.expect("the root is a module"));
        let text = &self.files[module].1;
        let Some(name) = rest.first().filter(|name| !text.defined.contains(*name) && depth < 9)
        else {
            return module.to_vec();
        };
        if let Some(from) = text.passed_on.get(name) {
            return self.defined_in(&[from, &rest[1..]].concat(), depth + 1);
        }
        let found =
            text.globs.iter().map(|from| self.defined_in(&[from, rest].concat(), depth + 1));
        let mut found = found.filter(|module| self.files[module].1.defined.contains(name));
        found.next().unwrap_or_else(|| module.to_vec())
    }
}

impl Text {
    fn new(module: &[String], text: &str) -> Text {
        let text = code_of(text);
        let children: BTreeSet<&str> =
            captures(r"\bmod (\w+);", &text).map(|(_, name)| name).collect();
        let absolute = |path: &str| absolute(module, path, &children);
        let uses = Regex::new(r"\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);").unwrap();
        let mut found = Text {
            used: Vec::new(),
            passed_on: BTreeMap::new(),
            globs: Vec::new(),
            defined: captures(DEFINITION, &text).map(|(_, name)| name.to_owned()).collect(),
        };
        for captured in uses.captures_iter(&text) {
            let line = line_of(&text, captured.get(0).unwrap().start());
            for path in expand(&captured[2]).iter().filter_map(|path| absolute(path)) {
                match path.split_last() {
                    Some((last, from)) if last == "*" && captured.get(1).is_some() => {
                        found.globs.push(from.to_vec());
                    }
                    Some((last, from)) if last == "*" => found.used.push((line, from.to_vec())),
                    Some((last, _)) if captured.get(1).is_some() => {
                        found.passed_on.insert(last.clone(), path);
                    }
                    _ => found.used.push((line, path)),
                }
            }
        }
        let blank = |captured: &regex::Captures<'_>| "\n".repeat(captured[0].matches('\n').count());
        let others = uses.replace_all(&text, blank);
        let others = Regex::new(r"pub\([^)]*\)").unwrap().replace_all(&others, "pub");
        for (at, path) in captures(r"\b((?:crate|super|self)(?:::\w+)+)", &others) {
            found.used.extend(absolute(path).map(|path| (line_of(&others, at), path)));
        }
        found
    }
}

const DEFINITION: &str = r"\b(?:fn|struct|enum|trait|type|const|static|union|macro_rules!)\s+(\w+)";

fn captures<'a>(pattern: &str, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let found: Vec<_> = Regex::new(pattern)
        .unwrap()
        .captures_iter(text)
        .map(|captured| captured.get(1).unwrap())
        .collect();
    found.into_iter().map(|part| (part.start(), part.as_str()))
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text[..at].matches('\n').count()
}

/// The text without comments, string contents and the tests at its end. Lines stay.
fn code_of(text: &str) -> String {
    let strings = Regex::new(r##"(?s)r#".*?"#|b?"(?:\\.|[^"\\])*"|//[^\n]*|'"'"##).unwrap();
    let blank = |captured: &regex::Captures<'_>| "\n".repeat(captured[0].matches('\n').count());
    let text = strings.replace_all(text, blank).into_owned();
    let tests = Regex::new(r"#\[cfg\(test\)\]\s*mod \w+ \{").unwrap().find(&text);
    let end = tests.map_or(text.len(), |tests| tests.start());
    text[..end].to_owned()
}

/// A path from the crate's root; `None` for those of other crates.
fn absolute(module: &[String], path: &str, children: &BTreeSet<&str>) -> Option<Module> {
    let mut parts: Vec<&str> = path.split("::").collect();
    let mut base: Module = module.to_vec();
    match parts[0] {
        "crate" => {
            base.clear();
            parts.remove(0);
        }
        "self" => {
            parts.remove(0);
        }
        "super" => {
            while parts.first() == Some(&"super") {
                base.pop();
                parts.remove(0);
            }
        }
        child if children.contains(child) => {}
        _ => return None,
    }
    if parts.last() == Some(&"self") {
        parts.pop();
    }
    base.extend(parts.into_iter().map(str::to_owned));
    Some(base)
}

/// The paths of a tree such as `a::{b, c::{d, e as f}}`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap().split_whitespace().collect()];
    };
    let rest = &rest[..rest.rfind('}').unwrap()];
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, sign) in rest.char_indices().chain([(rest.len(), ',')]) {
        match sign {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !rest[start..at].trim().is_empty() {
                    let parts = expand(&rest[start..at]);
                    found.extend(parts.iter().map(|part| format!("{}{part}", head.trim())));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

#[test]
fn trees_of_imports_are_read() {
    let tree = "crate::{\n    a::{self, B as C},\n    d::*,\n    e,\n}";
    assert_eq!(expand(tree), ["crate::a::self", "crate::a::B", "crate::d::*", "crate::e"]);
    let text = Text::new(
        &["x".to_owned(), "y".to_owned()],
        "use super::{a::B, c}; // use crate::no;\npub use self::z::D;\nmod z;\n\
         fn f() { crate::g::h() }",
    );
    let used: Vec<String> =
        text.used.iter().map(|(line, path)| format!("{line} {path:?}")).collect();
    let expected = [r#"1 ["x", "a", "B"]"#, r#"1 ["x", "c"]"#, r#"4 ["g", "h"]"#];
    assert_eq!(used, expected);
    assert_eq!(text.passed_on["D"], ["x", "y", "z", "D"]);
}
