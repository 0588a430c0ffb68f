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
//!
//! `word<name>` names an instance of a fragment, so that a kernel can have several. An instance has
//! fragments of its own, except for those that the kernel needs without a name. Its text gets other
//! names for what it declares: `rows` becomes `name_rows`, and `ROWS` becomes `NAME_ROWS`. Another
//! word becomes such a name if the struct gives this constant, or if a shared file declares it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use crate::gpu::device::faults::lock;
use crate::gpu::device::source::{Binding, KernelSource};
use crate::gpu::kernels::header::{
    Header, Need, binding, declared, is_word, name_in, replace_words,
};
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
    ("layer_end", &["dense_layer", "per_layer_input"]),
    ("ending", &["to_next_layer", "to_next_layer_apart", "to_output_head"]),
    ("product_weights", &["product_int4", "product_groups"]),
    ("real", &["real_f16", "real_f32"]),
    ("pairs_of_tile", &["single_pairs", "sorted_pairs"]),
];

/// Kernels that were assembled lately. The layers of a model share them, and assembling takes
/// milliseconds.
static ASSEMBLED: LazyLock<Mutex<HashMap<(&str, Wgsl), KernelSource>>> =
    LazyLock::new(Mutex::default);

/// More than the kernels of a model for all shapes of steps.
const MOST_ASSEMBLED: usize = 512;

/// A kernel's WGSL under construction: the choices and constants of its struct.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(in crate::gpu) struct Wgsl {
    /// Fragments, each for an instance or for all.
    choices: Vec<(Option<&'static str>, &'static str)>,
    constants: Vec<Constant>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
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
        self.choices.push((None, fragment));
        self
    }

    /// Adds the choices and constants of an instance.
    pub fn instance(mut self, name: &'static str, own: Wgsl) -> Self {
        self.choices.extend(own.choices.into_iter().map(|(_, choice)| (Some(name), choice)));
        self.constants.extend(
            own.constants
                .into_iter()
                .map(|constant| Constant { name: name_in(name, &constant.name), ..constant }),
        );
        self
    }

    /// The kernel in `file`. Panics if a need of the files is not met: shaders are part of the
    /// program.
    pub fn kernel(self, file: &'static str) -> KernelSource {
        let key = (file, self);
        if let Some(source) = lock(&ASSEMBLED).get(&key) {
            return source.clone();
        }
        let source = key.1.assemble(FILES, file).unwrap_or_else(|fault| panic!("{fault}"));
        let mut assembled = lock(&ASSEMBLED);
        if assembled.len() >= MOST_ASSEMBLED {
            assembled.clear();
        }
        assembled.insert(key, source.clone());
        source
    }

    /// Errors: a fault of a shader or struct, with the file and line.
    fn assemble(&self, files: &Files, file: &'static str) -> Result<KernelSource, String> {
        let parts = self.parts(files, file)?;
        let is_given = |name: &str| self.constants.iter().any(|given| given.name == name);
        let needs = |part: &Part, name: &str| {
            part.header.constants.iter().any(|needed| match part.in_instance(needed) {
                Some(own) if is_given(&own) => own == name,
                _ => *needed == name,
            })
        };
        for constant in self.constants.iter().filter(|constant| !constant.is_optional) {
            if !parts.iter().any(|part| needs(part, &constant.name)) {
                return Err(format!("{file}:1: nothing needs the constant {}", constant.name));
            }
        }
        for part in &parts {
            let lacks = |name: &&&str| {
                !is_given(name) && !part.in_instance(name).is_some_and(|own| is_given(&own))
            };
            if let Some(name) = part.header.constants.iter().find(lacks) {
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
            .map(|Constant { name, value, .. }| format!("const {name}: {value};\n").into());
        let texts = parts.iter().map(|part| self.text(part, &parts));
        let text: String = constants.chain(texts).collect();
        Ok(KernelSource {
            name: stem(file),
            file,
            bindings: bindings(&parts, &text)?,
            wgsl: enables + &unroll(&text),
        })
    }

    /// The text of a part, in which an instance has names of its own.
    fn text(&self, part: &Part, parts: &[Part]) -> Cow<'static, str> {
        let Some(instance) = part.instance else { return part.text.into() };
        let declares = |part: &Part, name: &str| declared(part.text).any(|word| word == name);
        let own_name = |word: &str| {
            let own = name_in(instance, word);
            let is_own = parts.iter().any(|part| match part.instance {
                Some(other) => other == instance && declares(part, word),
                None => declares(part, &own),
            });
            (is_own || self.constants.iter().any(|given| given.name == own)).then_some(own)
        };
        replace_words(part.text, own_name).into()
    }

    /// The file and all that it needs, shared parts before those of instances.
    fn parts(&self, files: &Files, file: &'static str) -> Result<Vec<Part>, String> {
        let (mut parts, mut instances) = (Vec::new(), Vec::new());
        self.include(files, file, None, &mut parts, &mut instances)?;
        let mut next = 0;
        while let Some(&(path, instance)) = instances.get(next) {
            self.include(files, path, Some(instance), &mut parts, &mut instances)?;
            next += 1;
        }
        Ok(parts)
    }

    /// Adds a file after the files that it needs, each once. Adds the instances that these need to
    /// `instances`.
    fn include(
        &self,
        files: &Files,
        path: &'static str,
        instance: Option<&'static str>,
        parts: &mut Vec<Part>,
        instances: &mut Vec<(&'static str, &'static str)>,
    ) -> Result<(), String> {
        let is_shared = |part: &Part| part.instance.is_none() || part.instance == instance;
        if parts.iter().any(|part| part.path == path && is_shared(part)) {
            return Ok(());
        }
        let text = text_of(files, path).ok_or_else(|| format!("there is no {path}"))?;
        let part = Part { path, instance, text, header: Header::of(text) };
        for &Need { word, instance: own } in &part.header.needs {
            let found = self.fragment(files, path, word, own.or(instance));
            let found = found.map_err(|fault| part.place(word) + ": " + &fault)?;
            match own {
                Some(own) => instances.push((found, own)),
                None => self.include(files, found, instance, parts, instances)?,
            }
        }
        parts.push(part);
        Ok(())
    }

    /// The file for `word` in the needs of `path`.
    fn fragment(
        &self,
        files: &Files,
        path: &str,
        word: &str,
        instance: Option<&str>,
    ) -> Result<&'static str, String> {
        let interface = INTERFACES.iter().find(|(name, _)| *name == word);
        let word = match interface {
            Some((_, fragments)) => {
                let suits = |(of, choice): &&(Option<&str>, &'static str)| {
                    (of.is_none() || *of == instance) && fragments.contains(choice)
                };
                let found = self.choices.iter().find(suits);
                found.ok_or_else(|| format!("nobody chooses a fragment for {word}"))?.1
            }
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
    instance: Option<&'static str>,
    text: &'static str,
    header: Header,
}

impl Part {
    /// The name that a constant has in the part's instance.
    fn in_instance(&self, name: &str) -> Option<String> {
        self.instance.map(|instance| name_in(instance, name))
    }

    /// File and line where the header names this.
    fn place(&self, name: &str) -> String {
        let names = |line: &str| line.split(|c: char| !is_word(c)).any(|word| word == name);
        let line = self.text.lines().position(names).unwrap_or(0);
        format!("{}:{}", self.path, line + 1)
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

#[cfg(test)]
mod tests;
