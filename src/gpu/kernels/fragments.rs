//! Fragments that depend on the device or the number format.

use crate::gpu::{device::tuning::KernelTarget, kernels::wgsl::Wgsl};
use crate::quant::{PackFormat, padded_cols};

impl Wgsl {
    /// The entry point and reductions, with subgroups or workgroup memory. The kernel defines
    /// `fn kernel(group: vec3<u32>, groups: vec3<u32>, local: u32)`.
    pub fn reductions(self, target: &KernelTarget, workgroup: usize) -> Self {
        let this = self.uint("WORKGROUP", workgroup);
        match target.variant.subgroups {
            Some(min_size) => this
                .optional_uint("SUBGROUPS", workgroup / (min_size as usize).min(workgroup))
                .choose("reduce_subgroups"),
            None => this.optional_uint("SUBGROUPS", 1).choose("reduce_workgroup"),
        }
    }

    /// How to read weights of `format`, eight at a time or as f16 into a tile. Int weights are also
    /// read in groups of 32 for integer dot products. `interleaved16`: in the order of
    /// `weight_layout.wgsl`.
    pub fn weights(self, format: PackFormat, cols: usize, interleaved16: bool) -> Self {
        let this = self.weight_layout(format, cols, interleaved16).choose(scales(format));
        let (group, offset) =
            format.layout().map_or((32, false), |(_, group, offset)| (group, offset));
        let bits = format.layout().map_or(0, |(bits, ..)| bits as usize);
        let this = this
            .optional_uint("BITS", bits)
            .optional_uint("LOW_WORDS", padded_cols(cols) / 8)
            .optional_uint("GROUP", group)
            .optional_bool("OFFSET", offset);
        let [weights, bytes] = match format {
            PackFormat::Int { bits: 4, .. } | PackFormat::Q4K => {
                return this.choose("weights_int4").choose("group_int4").choose("halves_int4");
            }
            PackFormat::F32 => return this.choose("weights_f32"),
            PackFormat::F16 => return this.choose("weights_f16"),
            PackFormat::BF16 => return this.choose("weights_bf16"),
            PackFormat::Int { bits: 5 | 6, .. } => ["weights_int56", "bytes_int56"],
            PackFormat::Iq4 => ["weights_iq4", "bytes_iq4"],
            PackFormat::Int { .. } => ["weights_int8", "bytes_int8"],
        };
        this.choose(weights).choose(bytes).choose("group_bytes").choose("halves_bytes")
    }

    /// The addresses of the words of weights.
    pub fn weight_layout(self, format: PackFormat, cols: usize, interleaved16: bool) -> Self {
        self.optional_uint("DATA_WORDS", format.data_words(cols))
            .optional_uint("SCALE_WORDS", format.scale_words(cols).max(1))
            .optional_bool("INTERLEAVED16", interleaved16)
    }
}

fn scales(format: PackFormat) -> &'static str {
    match format.layout() {
        None => "scales_none",
        _ if format == PackFormat::Q4K => "scales_q4_k",
        Some((.., false)) => "scales_symmetric",
        Some((.., true)) => "scales_offset",
    }
}
