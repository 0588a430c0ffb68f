//! Puts a kernel's WGSL together: constants, then the fragments that it is made of.
//!
//! A fragment is a file under `shaders/`. What varies is chosen by fragment (a number format, a way
//! to reduce) or by constant, so that no preprocessor is needed.

use std::fmt::Write;

use crate::{
    gpu::{
        device::{
            source::{Access, Binding, KernelSource},
            tuning::KernelTarget,
        },
        kernels::unroll::unroll,
    },
    quant::{PackFormat, padded_cols},
};

// `FILES`: path and text of every file in shaders/, which build.rs lists.
include!(concat!(env!("OUT_DIR"), "/shaders.rs"));

pub(super) fn text_of(file: &str) -> &'static str {
    let found = FILES.iter().find(|(path, _)| *path == file);
    found.unwrap_or_else(|| panic!("there is no {file}")).1
}

/// WGSL text under construction.
pub(in crate::gpu) struct Wgsl {
    enables: String,
    text: String,
    /// With their numbers: literals, or sums with a constant.
    bindings: Vec<(&'static str, Binding)>,
}

impl Wgsl {
    pub fn new() -> Self {
        Wgsl { enables: String::new(), text: String::new(), bindings: Vec::new() }
    }

    /// `alias real`: the type of matrix tiles.
    pub fn real(mut self, f16: bool) -> Self {
        if f16 {
            self.enables.push_str("enable f16;\n");
        }
        self.text.push_str(if f16 { "alias real = f16;\n" } else { "alias real = f32;\n" });
        // f16 ends at 65504: larger activations are held there rather than becoming infinite.
        self.float("REAL_MAX", if f16 { 65504.0 } else { 3.4e38 })
    }

    /// f16 and cooperative matrices.
    pub fn coop(mut self) -> Self {
        self.enables.push_str("enable f16;\nenable wgpu_cooperative_matrix;\n");
        self
    }

    /// f16 alone.
    pub fn f16(mut self) -> Self {
        self.enables.push_str("enable f16;\n");
        self
    }

    pub fn uint(mut self, name: &str, value: usize) -> Self {
        let _ = writeln!(self.text, "const {name}: u32 = {value}u;");
        self
    }

    pub fn float(mut self, name: &str, value: f32) -> Self {
        let _ = writeln!(self.text, "const {name}: f32 = {value:e}f;");
        self
    }

    pub fn bool(mut self, name: &str, value: bool) -> Self {
        let _ = writeln!(self.text, "const {name}: bool = {value};");
        self
    }

    /// A file, with the bindings that it declares.
    pub fn part(mut self, file: &'static str) -> Self {
        let text = text_of(file);
        let lines = text.lines().enumerate();
        self.bindings.extend(lines.filter_map(|(index, line)| binding(file, index + 1, line)));
        self.text.push_str(text);
        self
    }

    /// Text that declares no bindings.
    pub fn text(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// The entry point and reductions, through subgroups or workgroup memory. The kernel defines
    /// `fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32)`.
    pub fn reductions(self, target: &KernelTarget, workgroup: usize) -> Self {
        let this = self.uint("WORKGROUP", workgroup);
        match target.variant.subgroups {
            Some(min_size) => this
                .uint("TEAMS", workgroup / (min_size as usize).min(workgroup))
                .part("shaders/shared/reduce_subgroups.wgsl"),
            None => this.uint("TEAMS", 1).part("shaders/shared/reduce_workgroup.wgsl"),
        }
    }

    /// How to read weights of `format`, eight at a time, from `data` and `scales`. `tiled`: in the
    /// order of `weight_place.wgsl`.
    pub fn weights(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_constants(format, cols, tiled);
        match format {
            PackFormat::F32 => this.part("shaders/shared/weights_f32.wgsl"),
            PackFormat::F16 => this.part("shaders/shared/weights_f16.wgsl"),
            PackFormat::BF16 => this.part("shaders/shared/weights_bf16.wgsl"),
            PackFormat::Int { bits: 4, .. } | PackFormat::Q4K => {
                this.part("shaders/shared/weights_int4.wgsl")
            }
            PackFormat::Int { bits: 5 | 6, .. } => {
                this.part("shaders/shared/int56.wgsl").part("shaders/shared/weights_int56.wgsl")
            }
            PackFormat::Int { .. } => this.part("shaders/shared/weights_int8.wgsl"),
            PackFormat::Iq4 => {
                this.part("shaders/shared/iq4.wgsl").part("shaders/shared/weights_iq4.wgsl")
            }
        }
    }

    /// How to read int weights in groups of 32 for integer dot products.
    pub fn weight_groups(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_constants(format, cols, tiled);
        match format {
            PackFormat::Int { bits: 4, .. } | PackFormat::Q4K => {
                this.part("shaders/shared/group_int4.wgsl")
            }
            _ => this.weight_bytes(format).part("shaders/shared/group_bytes.wgsl"),
        }
    }

    /// How to write int weights as f16 to a tile, 32 of a row at a time.
    pub fn weight_halves(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_constants(format, cols, tiled);
        match format {
            PackFormat::Int { bits: 4, .. } | PackFormat::Q4K => {
                this.part("shaders/shared/halves_int4.wgsl")
            }
            _ => this.weight_bytes(format).part("shaders/shared/halves_bytes.wgsl"),
        }
    }

    /// How to read 32 weights of a row as int8, and their scales.
    fn weight_bytes(self, format: PackFormat) -> Self {
        let this = self.part("shaders/shared/bytes.wgsl").part("shaders/shared/block_scales.wgsl");
        match format {
            PackFormat::Int { bits: 5 | 6, .. } => {
                this.part("shaders/shared/int56.wgsl").part("shaders/shared/bytes_int56.wgsl")
            }
            PackFormat::Iq4 => {
                this.part("shaders/shared/iq4.wgsl").part("shaders/shared/bytes_iq4.wgsl")
            }
            _ => this.part("shaders/shared/bytes_int8.wgsl"),
        }
    }

    /// Where words of weights lie.
    pub fn weight_place(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        self.uint("DATA_WORDS", format.data_words(cols))
            .uint("SCALE_WORDS", format.scale_words(cols).max(1))
            .bool("TILED", tiled)
            .part("shaders/shared/weight_place.wgsl")
    }

    fn weight_constants(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_place(format, cols, tiled);
        match format.layout() {
            None => {
                this.uint("GROUP", 32).bool("OFFSET", false).part("shaders/shared/scales_none.wgsl")
            }
            Some((bits, group, offset)) => this
                .uint("BITS", bits as usize)
                .uint("LOW_WORDS", padded_cols(cols) / 8)
                .uint("GROUP", group)
                .bool("OFFSET", offset)
                .part(match offset {
                    _ if format == PackFormat::Q4K => "shaders/shared/scales_q4_k.wgsl",
                    false => "shaders/shared/scales_symmetric.wgsl",
                    true => "shaders/shared/scales_offset.wgsl",
                }),
        }
    }

    /// The kernel in `file`, which is the last part, and names it.
    pub fn kernel(self, file: &'static str) -> KernelSource {
        let mut this = self.part(file);
        let number = |(number, _): &(&str, _)| -> usize {
            number.split(" + ").map(|term| constant(&this.text, term)).sum()
        };
        this.bindings.sort_by_cached_key(number);
        assert!(this.bindings.iter().map(number).eq(0..this.bindings.len()), "bindings of {file}");
        let stem = file.rsplit('/').next().and_then(|name| name.strip_suffix(".wgsl"));
        KernelSource {
            name: stem.unwrap_or(file),
            file,
            wgsl: this.enables + &unroll(&this.text),
            bindings: this.bindings.into_iter().map(|(_, binding)| binding).collect(),
        }
    }
}

/// The value of a literal, or of a constant of the text.
fn constant(text: &str, term: &str) -> usize {
    let declared = || text.split_once(&format!("const {term}: u32 = "))?.1.split_once("u;");
    let value = declared().map_or(term, |(value, _)| value);
    value.parse().unwrap_or_else(|_| panic!("the number of a binding: {term}"))
}

/// Number and binding of a line `@group(0) @binding(number) var<storage, read> name: …`.
fn binding(file: &'static str, line: usize, text: &'static str) -> Option<(&'static str, Binding)> {
    let (number, rest) = text.strip_prefix("@group(0) @binding(")?.split_once(") ")?;
    let (space, rest) = rest.trim_start_matches("@coherent ").split_once("> ")?;
    let access = match space {
        "var<uniform" => Access::Uniform,
        "var<storage, read" => Access::Read,
        "var<storage, read_write" => Access::ReadWrite,
        _ => return None,
    };
    let (name, _) = rest.split_once(':')?;
    Some((number, Binding { name, access, file, line }))
}
