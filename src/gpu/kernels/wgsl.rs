//! Puts a kernel's WGSL together: constants, then the fragments that it is made of.
//!
//! A fragment is a file under `shaders/`. What varies is chosen by fragment (a number format, a way
//! to reduce) or by constant, so that no preprocessor is needed.

use std::fmt::Write;

use crate::{
    gpu::{device::tuning::KernelTarget, kernels::unroll::unroll},
    quant::{PackFormat, padded_cols},
};

/// WGSL text under construction.
pub(in crate::gpu) struct Wgsl {
    enables: String,
    text: String,
}

impl Wgsl {
    pub fn new() -> Self {
        Wgsl { enables: String::new(), text: String::new() }
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

    pub fn part(mut self, fragment: &str) -> Self {
        self.text.push_str(fragment);
        self
    }

    /// The entry point and reductions, through subgroups or workgroup memory. The kernel defines
    /// `fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32)`.
    pub fn reductions(self, target: &KernelTarget, workgroup: usize) -> Self {
        let this = self.uint("WORKGROUP", workgroup);
        match target.variant.subgroups {
            Some(min_size) => this
                .uint("TEAMS", workgroup / (min_size as usize).min(workgroup))
                .part(include_str!("../../../shaders/shared/reduce_subgroups.wgsl")),
            None => this
                .uint("TEAMS", 1)
                .part(include_str!("../../../shaders/shared/reduce_workgroup.wgsl")),
        }
    }

    /// How to read weights of `format`, eight at a time, from `data` and `scales`. `tiled`: in the
    /// order of `weight_place.wgsl`.
    pub fn weights(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_constants(format, cols, tiled);
        match format {
            PackFormat::F32 => this.part(include_str!("../../../shaders/shared/weights_f32.wgsl")),
            PackFormat::F16 => this.part(include_str!("../../../shaders/shared/weights_f16.wgsl")),
            PackFormat::BF16 => {
                this.part(include_str!("../../../shaders/shared/weights_bf16.wgsl"))
            }
            PackFormat::Int { bits: 4, .. } | PackFormat::Q4K => {
                this.part(include_str!("../../../shaders/shared/weights_int4.wgsl"))
            }
            PackFormat::Int { bits: 5 | 6, .. } => this
                .part(include_str!("../../../shaders/shared/int56.wgsl"))
                .part(include_str!("../../../shaders/shared/weights_int56.wgsl")),
            PackFormat::Int { .. } => {
                this.part(include_str!("../../../shaders/shared/weights_int8.wgsl"))
            }
            PackFormat::Iq4 => this
                .part(include_str!("../../../shaders/shared/iq4.wgsl"))
                .part(include_str!("../../../shaders/shared/weights_iq4.wgsl")),
        }
    }

    /// How to read int weights in groups of 32 for integer dot products.
    pub fn weight_groups(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_constants(format, cols, tiled);
        match format {
            PackFormat::Int { bits: 4, .. } | PackFormat::Q4K => {
                this.part(include_str!("../../../shaders/shared/group_int4.wgsl"))
            }
            _ => this
                .weight_bytes(format)
                .part(include_str!("../../../shaders/shared/group_bytes.wgsl")),
        }
    }

    /// How to write int weights as f16 to a tile, 32 of a row at a time.
    pub fn weight_halves(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_constants(format, cols, tiled);
        match format {
            PackFormat::Int { bits: 4, .. } | PackFormat::Q4K => {
                this.part(include_str!("../../../shaders/shared/halves_int4.wgsl"))
            }
            _ => this
                .weight_bytes(format)
                .part(include_str!("../../../shaders/shared/halves_bytes.wgsl")),
        }
    }

    /// How to read 32 weights of a row as int8, and their scales.
    fn weight_bytes(self, format: PackFormat) -> Self {
        let this = self
            .part(include_str!("../../../shaders/shared/bytes.wgsl"))
            .part(include_str!("../../../shaders/shared/block_scales.wgsl"));
        match format {
            PackFormat::Int { bits: 5 | 6, .. } => this
                .part(include_str!("../../../shaders/shared/int56.wgsl"))
                .part(include_str!("../../../shaders/shared/bytes_int56.wgsl")),
            PackFormat::Iq4 => this
                .part(include_str!("../../../shaders/shared/iq4.wgsl"))
                .part(include_str!("../../../shaders/shared/bytes_iq4.wgsl")),
            _ => this.part(include_str!("../../../shaders/shared/bytes_int8.wgsl")),
        }
    }

    /// Where words of weights lie.
    pub fn weight_place(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        self.uint("DATA_WORDS", format.data_words(cols))
            .uint("SCALE_WORDS", format.scale_words(cols).max(1))
            .bool("TILED", tiled)
            .part(include_str!("../../../shaders/shared/weight_place.wgsl"))
    }

    fn weight_constants(self, format: PackFormat, cols: usize, tiled: bool) -> Self {
        let this = self.weight_place(format, cols, tiled);
        match format.layout() {
            None => this
                .uint("GROUP", 32)
                .bool("OFFSET", false)
                .part(include_str!("../../../shaders/shared/scales_none.wgsl")),
            Some((bits, group, offset)) => this
                .uint("BITS", bits as usize)
                .uint("LOW_WORDS", padded_cols(cols) / 8)
                .uint("GROUP", group)
                .bool("OFFSET", offset)
                .part(match offset {
                    _ if format == PackFormat::Q4K => {
                        include_str!("../../../shaders/shared/scales_q4_k.wgsl")
                    }
                    false => include_str!("../../../shaders/shared/scales_symmetric.wgsl"),
                    true => include_str!("../../../shaders/shared/scales_offset.wgsl"),
                }),
        }
    }

    pub fn finish(self) -> String {
        self.enables + &unroll(&self.text)
    }
}
