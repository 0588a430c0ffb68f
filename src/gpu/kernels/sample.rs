//! Choosing a token at random from the logits.

use crate::gpu::device::grid::{Extent, Grid};
use crate::gpu::device::source::KernelSource;
use crate::gpu::device::tuning::KernelTarget;
use crate::gpu::kernels::{Kernel, wgsl::Wgsl};
use crate::sampling::Draw;

/// The first half of [`Argmax`]. Bindings: logits `[outputs, n]`, parts `[outputs, PARTS, 2]`.
#[derive(Debug, Clone, Copy)]
pub struct ArgmaxParts {
    pub n: usize,
}

/// Bindings: parts, outputs (row indexes), rows, sampled `[slots]`.
#[derive(Debug, Clone, Copy)]
pub struct Argmax {
    pub n: usize,
}

impl Argmax {
    /// Parts of a row that are searched at the same time.
    pub const PARTS: usize = 64;
}

impl Kernel for ArgmaxParts {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", self.n.div_ceil(Argmax::PARTS).next_power_of_two().clamp(32, 256))
            .uint("N", self.n)
            .uint("PARTS", Argmax::PARTS)
            .kernel("shaders/sample/argmax_parts.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Outputs, Extent::Fixed(Argmax::PARTS as u32), Extent::Fixed(1)])
    }
}

impl Kernel for Argmax {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", Self::PARTS)
            .uint("N", self.n)
            .uint("PARTS", Self::PARTS)
            .kernel("shaders/sample/argmax.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::outputs()
    }
}

/// The first half of [`Sample`]: the best candidates of each part of a row.
///
/// Bindings: logits `[outputs, n]`, draws `[outputs]` ([`DrawWords`]), parts `[outputs, CANDIDATES,
/// 2]`.
#[derive(Debug, Clone, Copy)]
pub struct TopKParts {
    pub n: usize,
}

/// The best candidates of the whole row, and the token drawn from them.
///
/// Bindings: parts, draws, outputs (row indexes), rows, sampled `[slots]`. A slot gets an id, or
/// `u32::MAX` if a logit is NaN or +∞, or none is finite.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub n: usize,
}

impl Sample {
    /// Parts of a row that are searched at once.
    const PARTS: usize = 64;
    /// Number of candidates that all parts of a row have room for.
    pub const CANDIDATES: usize = Self::PARTS * Draw::MOST_TOP_K;
    /// An invocation for each value of a byte.
    const WORKGROUP: usize = 256;
}

/// Sets the logits of suppressed tokens to −∞.
///
/// Bindings: logits `[outputs, n]`, ids `[count]`, each below `n`.
#[derive(Debug, Clone, Copy)]
pub struct Suppress {
    pub n: usize,
    pub count: usize,
}

/// A [`Draw`] as kernels see it (`Draw` in shaders/shared/draw.wgsl).
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct DrawWords {
    quarter_temperature: f32,
    top_p: f32,
    min_p: f32,
    point: f32,
    top_k: u32,
}

impl DrawWords {
    /// Always the most likely token.
    pub const LIKELIEST: DrawWords =
        DrawWords { quarter_temperature: 0.25, top_p: 1.0, min_p: 0.0, point: 0.0, top_k: 1 };
}

impl From<Draw> for DrawWords {
    fn from(draw: Draw) -> Self {
        // Rounded down, because 1 would be past the last token.
        let point = ((draw.point * (1 << 24) as f64).floor() / (1 << 24) as f64) as f32;
        // A denormal temperature may become zero on some devices. WGSL guarantees
        // nothing for divisors above 2^126.
        let quarter_temperature = 0.25 * draw.temperature.max(1e-30);
        DrawWords {
            quarter_temperature,
            top_p: draw.top_p,
            min_p: draw.min_p,
            point,
            top_k: draw.top_k as u32,
        }
    }
}

/// Constants and the selection that both halves share, for rows of `n` logits.
fn selection(n: usize) -> Wgsl {
    // Digits of the ids, and of one more value that is no id.
    let id_digits = (u32::BITS - (n as u32).leading_zeros()).div_ceil(8).max(1);
    Wgsl::default()
        .uint("WORKGROUP", Sample::WORKGROUP)
        .optional_uint("N", n)
        .uint("PARTS", Sample::PARTS)
        .uint("MOST", Draw::MOST_TOP_K)
        .uint("ID_DIGITS", id_digits as usize)
        .uint("NO_ID", (u32::MAX >> (32 - 8 * id_digits)) as usize)
}

impl Kernel for TopKParts {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        selection(self.n).kernel("shaders/sample/top_k_parts.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid([Extent::Outputs, Extent::Fixed(Sample::PARTS as u32), Extent::Fixed(1)])
    }
}

impl Kernel for Sample {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        selection(self.n).kernel("shaders/sample/sample.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::outputs()
    }
}

impl Kernel for Suppress {
    fn source(&self, _: &KernelTarget) -> KernelSource {
        Wgsl::default()
            .uint("WORKGROUP", 64)
            .uint("N", self.n)
            .uint("COUNT", self.count)
            .kernel("shaders/sample/suppress.wgsl")
    }

    fn grid(&self, _: &KernelTarget) -> Grid {
        Grid::outputs()
    }
}
