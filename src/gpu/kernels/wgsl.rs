//! Assembles a kernel's WGSL from its file, the fragments that it needs, and their constants.
//!
//! A file under `shaders/` begins with what it needs:
//!
//! ```wgsl
//! //! needs: step, weights; constants ROWS, COLS; enables f16
//! ```
//!
//! A word names a fragment in the file's own folder or in `shaders/shared/`, or one of
//! [`INTERFACES`]. For an interface the kernel's struct chooses the fragment. The struct also gives
//! the constants.

use crate::gpu::device::source::{Access, Binding, KernelSource};
use crate::gpu::kernels::unroll::unroll;

// `FILES`: path and text of every file in shaders/, which build.rs lists.
include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

type Files = [(&'static str, &'static str)];

/// The interfaces: each has several fragments, of which a kernel uses one.
const INTERFACES: &[(&str, &[&str])] = &[
    (
        "weights",
        &[
            "weights_f32",
            "weights_f16",
            "weights_bf16",
            "weights_int4",
            "weights_int56",
            "weights_int8",
            "weights_iq4",
        ],
    ),
    ("scales", &["scales_none", "scales_symmetric", "scales_offset", "scales_q4_k"]),
    ("weight_groups", &["group_int4", "group_bytes"]),
    ("weight_halves", &["halves_int4", "halves_bytes"]),
    ("weight_bytes", &["bytes_int8", "bytes_int56", "bytes_iq4"]),
    ("reduce", &["reduce_subgroups", "reduce_workgroup"]),
    ("epilogue", &["epilogue_f32", "epilogue_q8", "epilogue_q8_subgroups", "epilogue_f16"]),
    ("cache", &["cache_f16", "cache_f32"]),
    ("scores", &["scores_workgroup", "scores_subgroups"]),
    ("heads", &["heads_ready", "heads_query", "heads_raw"]),
    ("norm_heads", &["norm_heads_workgroup", "norm_heads_subgroups"]),
    ("up", &["up_whole", "up_tail"]),
    ("source", &["source_f16", "source_bf16", "source_f32"]),
    ("search", &["hqq_scale", "hqq_offset"]),
    (
        "blocks",
        &["blocks_nibbles", "blocks_bytes", "blocks_iq4_xs", "blocks_fifths", "blocks_q5_k"],
    ),
    ("ending", &["to_next_layer", "to_output_head"]),
    ("real", &["real_f16", "real_f32"]),
];

/// A kernel's WGSL under construction: the choices and constants of its struct.
#[derive(Default)]
pub(in crate::gpu) struct Wgsl {
    choices: Vec<&'static str>,
    constants: Vec<Constant>,
}

struct Constant {
    name: String,
    /// Its type and value.
    value: String,
    /// Some fragments of an interface need it, some do not.
    is_optional: bool,
}

impl Wgsl {
    pub fn uint(self, name: impl Into<String>, value: usize) -> Self {
        self.constant(name, format!("u32 = {value}u"), false)
    }

    pub fn float(self, name: impl Into<String>, value: f32) -> Self {
        self.constant(name, format!("f32 = {value:e}f"), false)
    }

    pub fn bool(self, name: impl Into<String>, value: bool) -> Self {
        self.constant(name, format!("bool = {value}"), false)
    }

    /// A constant that only some fragments need.
    pub fn optional_uint(self, name: impl Into<String>, value: usize) -> Self {
        self.constant(name, format!("u32 = {value}u"), true)
    }

    /// See [`Wgsl::optional_uint`].
    pub fn optional_float(self, name: impl Into<String>, value: f32) -> Self {
        self.constant(name, format!("f32 = {value:e}f"), true)
    }

    /// See [`Wgsl::optional_uint`].
    pub fn optional_bool(self, name: impl Into<String>, value: bool) -> Self {
        self.constant(name, format!("bool = {value}"), true)
    }

    fn constant(mut self, name: impl Into<String>, value: String, is_optional: bool) -> Self {
        self.constants.push(Constant { name: name.into(), value, is_optional });
        self
    }

    /// Chooses the fragment for its interface, which the kernel or a fragment may need.
    pub fn choose(mut self, fragment: &'static str) -> Self {
        self.choices.push(fragment);
        self
    }

    /// The kernel in `file`. Panics if a need of the files is not met: shaders are part of the
    /// program.
    pub fn kernel(&self, file: &'static str) -> KernelSource {
        self.assemble(FILES, file).unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Errors: a fault of a shader or struct, with the file and line.
    fn assemble(&self, files: &Files, file: &'static str) -> Result<KernelSource, String> {
        let mut parts = Vec::new();
        self.include(files, file, &mut parts)?;
        let needs = |part: &Part, name: &str| part.header.constants.contains(&name);
        for constant in self.constants.iter().filter(|constant| !constant.is_optional) {
            if !parts.iter().any(|part| needs(part, &constant.name)) {
                return Err(format!("{file}:1: nothing needs the constant {}", constant.name));
            }
        }
        for part in &parts {
            let is_given = |name: &&str| self.constants.iter().any(|given| given.name == *name);
            if let Some(name) = part.header.constants.iter().find(|name| !is_given(name)) {
                return Err(format!("{}: nobody gives the constant {name}", part.place(name)));
            }
        }
        let mut enables: Vec<&str> =
            parts.iter().flat_map(|part| part.header.enables.clone()).collect();
        enables.sort();
        enables.dedup();
        let enables: String = enables.iter().map(|name| format!("enable {name};\n")).collect();
        let constants = self
            .constants
            .iter()
            .filter(|constant| parts.iter().any(|part| needs(part, &constant.name)))
            .map(|Constant { name, value, .. }| format!("const {name}: {value};\n"));
        let text: String = constants.chain(parts.iter().map(|part| part.text.to_owned())).collect();
        Ok(KernelSource {
            name: stem(file),
            file,
            bindings: bindings(&parts, &text)?,
            wgsl: enables + &unroll(&text),
        })
    }

    /// Adds a file after the files that it needs, each once.
    fn include(
        &self,
        files: &Files,
        path: &'static str,
        parts: &mut Vec<Part>,
    ) -> Result<(), String> {
        if parts.iter().any(|part| part.path == path) {
            return Ok(());
        }
        let text = text_of(files, path).ok_or_else(|| format!("there is no {path}"))?;
        let part = Part { path, text, header: Header::of(text) };
        for word in &part.header.needs {
            let found = self.fragment(files, path, word);
            self.include(files, found.map_err(|fault| part.place(word) + ": " + &fault)?, parts)?;
        }
        parts.push(part);
        Ok(())
    }

    /// The file for `word` in the needs of `path`.
    fn fragment(&self, files: &Files, path: &str, word: &str) -> Result<&'static str, String> {
        let interface = INTERFACES.iter().find(|(name, _)| *name == word);
        let word = match interface {
            Some((_, fragments)) => *self
                .choices
                .iter()
                .find(|choice| fragments.contains(choice))
                .ok_or_else(|| format!("nobody chooses a fragment for {word}"))?,
            None => word,
        };
        locate(files, path, word).ok_or_else(|| format!("there is no fragment {word}"))
    }
}

/// The file of a fragment: in the folder of `path`, else a shared one.
fn locate(files: &Files, path: &str, word: &str) -> Option<&'static str> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let is = |folder: &str, file: &str| file == format!("{folder}/{word}.wgsl");
    let found = |folder: &str| files.iter().find(|(file, _)| is(folder, file));
    found(folder).or_else(|| found("shaders/shared")).map(|(file, _)| *file)
}

fn text_of(files: &Files, path: &str) -> Option<&'static str> {
    files.iter().find(|(file, _)| *file == path).map(|(_, text)| *text)
}

/// The name of a file without its folder and ending.
fn stem(file: &'static str) -> &'static str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".wgsl").unwrap_or(name)
}

/// A file of a kernel.
struct Part {
    path: &'static str,
    text: &'static str,
    header: Header,
}

impl Part {
    /// File and line where the header names this.
    fn place(&self, name: &str) -> String {
        let names = |line: &str| line.split(|c: char| !is_word(c)).any(|word| word == name);
        let line = self.text.lines().position(names).unwrap_or(0);
        format!("{}:{}", self.path, line + 1)
    }
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The needs of a file.
#[derive(Default)]
struct Header {
    needs: Vec<&'static str>,
    constants: Vec<&'static str>,
    enables: Vec<&'static str>,
}

impl Header {
    /// Reads the lines `//!` with which a file begins. A word `constants` or `enables` gives the
    /// kind of the words after it.
    fn of(text: &'static str) -> Self {
        let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
        let words = lines.flat_map(|line| line.split(|c| !is_word(c))).filter(|w| !w.is_empty());
        let mut header = Header::default();
        let mut kind = "needs";
        for word in words {
            match (word, kind) {
                ("needs" | "constants" | "enables", _) => kind = word,
                (_, "constants") => header.constants.push(word),
                (_, "enables") => header.enables.push(word),
                _ => header.needs.push(word),
            }
        }
        header
    }
}

/// The bindings that the files declare, in the order of their numbers.
fn bindings(parts: &[Part], text: &str) -> Result<Vec<Binding>, String> {
    let mut found = Vec::new();
    for part in parts {
        for (index, line) in part.text.lines().enumerate() {
            let Some((number, name, access)) = binding(line) else { continue };
            let line = index + 1;
            let number = number
                .split(" + ")
                .try_fold(0, |sum, term| Some(sum + value(text, term)?))
                .ok_or_else(|| format!("{}:{line}: binding {name} has no number", part.path))?;
            found.push((number, Binding { name, access, file: part.path, line }));
        }
    }
    found.sort_by_key(|(number, _)| *number);
    match found.iter().enumerate().find(|(index, (number, _))| index != number) {
        Some((_, (_, Binding { file, line, name, .. }))) => {
            Err(format!("{file}:{line}: the number of binding {name} does not follow the others"))
        }
        None => Ok(found.into_iter().map(|(_, binding)| binding).collect()),
    }
}

/// The value of a literal, or of a constant of the text.
fn value(text: &str, term: &str) -> Option<usize> {
    let declared = text.split_once(&format!("const {term}: u32 = "));
    declared
        .and_then(|(_, rest)| rest.split_once("u;"))
        .map_or(term, |(value, _)| value)
        .parse()
        .ok()
}

/// Number, name and access of a line `@group(0) @binding(number) var<storage, read> name: …`.
fn binding(line: &'static str) -> Option<(&'static str, &'static str, Access)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of WGSL text without its comments.
    fn words(text: &str) -> impl Iterator<Item = &str> {
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        code.flat_map(|line| line.split(|c| !is_word(c))).filter(|word| !word.is_empty())
    }

    /// Names that a file declares: what follows these words at the beginning of a line.
    fn declared(text: &'static str) -> Vec<&'static str> {
        let name = |line: &'static str| {
            if let Some((_, name, _)) = binding(line) {
                return Some(name);
            }
            let (word, rest) = line.split_once(' ')?;
            let is_declaration =
                ["fn", "const", "struct", "alias"].contains(&word) || word.starts_with("var<");
            is_declaration.then(|| rest.split(|c| !is_word(c)).next()).flatten()
        };
        text.lines().filter_map(name).collect()
    }

    fn fragments(word: &'static str) -> Vec<&'static str> {
        let interface = INTERFACES.iter().find(|(name, _)| *name == word);
        interface.map_or(vec![word], |(_, fragments)| fragments.to_vec())
    }

    fn means(word: &'static str, path: &'static str) -> bool {
        fragments(word).contains(&stem(path))
    }

    #[test]
    fn files_need_what_they_use() {
        let all: Vec<&str> = FILES.iter().flat_map(|(_, text)| declared(text)).collect();
        for &(path, text) in FILES {
            let part = Part { path, text, header: Header::of(text) };
            let used: Vec<&str> = words(text).collect();
            // A fragment's needs may be for the files that need this fragment.
            let for_others: Vec<&str> = FILES
                .iter()
                .filter(|(_, text)| Header::of(text).needs.iter().any(|word| means(word, path)))
                .flat_map(|(_, text)| words(text))
                .collect();
            for word in &part.header.needs {
                let place = part.place(word);
                let uses = |fragment: &&str| {
                    let file = locate(FILES, path, fragment);
                    let file = file.unwrap_or_else(|| panic!("{place}: there is no {fragment}"));
                    let needed = text_of(FILES, file).unwrap_or_default();
                    let is_used = declared(needed)
                        .iter()
                        .any(|name| used.contains(name) || for_others.contains(name));
                    is_used || declared(text).iter().any(|name| words(needed).any(|w| w == *name))
                };
                // All fragments of an interface are searched, since only one of them is used.
                let uses: Vec<bool> = fragments(word).iter().map(uses).collect();
                assert!(uses.contains(&true), "{place}: {word} is not used");
            }
            for name in &part.header.constants {
                assert!(used.contains(name), "{}: {name} is not used", part.place(name));
            }
            let is_constant = |word: &str| {
                word.len() > 1
                    && word.starts_with(|c: char| c.is_ascii_uppercase())
                    && word.chars().all(|c| !c.is_ascii_lowercase())
            };
            for name in used.iter().filter(|word| is_constant(word) && !all.contains(word)) {
                let is_listed = part.header.constants.contains(name);
                assert!(is_listed, "{path}: the constant {name} is not listed");
            }
        }
    }

    #[test]
    fn every_fragment_of_an_interface_is_there() {
        for (interface, fragments) in INTERFACES {
            for fragment in *fragments {
                assert!(
                    FILES.iter().any(|(path, _)| stem(path) == *fragment),
                    "{interface}: {fragment}"
                );
            }
        }
    }

    const KERNEL: &str = "shaders/linear/copy.wgsl";

    fn assemble(wgsl: Wgsl, kernel: &'static str) -> Result<KernelSource, String> {
        let files = [
            (KERNEL, kernel),
            ("shaders/shared/once.wgsl", "//! needs: constants N\nconst ONCE: u32 = N;\n"),
            ("shaders/shared/twice.wgsl", "//! needs: once\nconst TWICE: u32 = 2u * ONCE;\n"),
        ];
        wgsl.assemble(&files, KERNEL)
    }

    #[test]
    fn fragments_come_once_and_before_what_needs_them() {
        let kernel = "//! needs: twice, once;\n//! enables f16\nfn main() {}\n";
        let source = assemble(Wgsl::default().uint("N", 3), kernel).unwrap();
        let text: String = source.wgsl.lines().filter(|line| !line.starts_with("//!")).collect();
        assert_eq!(
            text,
            "enable f16;const N: u32 = 3u;\
             const ONCE: u32 = N;const TWICE: u32 = 2u * ONCE;fn main() {}"
        );
        assert_eq!(source.name, "copy");
    }

    #[test]
    fn faults_are_told_by_file_and_line() {
        let n = || Wgsl::default().uint("N", 3);
        for (wgsl, kernel, expected) in [
            (n(), "//! needs: once,\n//! thrice\n", "copy.wgsl:2: there is no fragment thrice"),
            (n(), "//! needs: epilogue\n", "copy.wgsl:1: nobody chooses a fragment for epilogue"),
            (Wgsl::default(), "//! needs: once\n", "once.wgsl:1: nobody gives the constant N"),
            (n().bool("M", true), "//! needs: once\n", "copy.wgsl:1: nothing needs the constant M"),
        ] {
            let error = assemble(wgsl, kernel).unwrap_err();
            assert!(error.ends_with(expected), "{error}");
        }
    }
}
