//! Values of the options as command-line words.

use std::{num::NonZeroUsize, str::FromStr};

use clap::{ValueEnum, builder::PossibleValue};

use crate::{backend::BackendKind, cpu::Instructions, model::kv::CacheType, quant::Quantize};

/// A context's length.
#[derive(Debug, Clone, Copy)]
pub enum Context {
    Max,
    Tokens(NonZeroUsize),
}

impl FromStr for Context {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Context::Max),
            _ => text
                .parse()
                .map(Context::Tokens)
                .map_err(|_| "want a number of tokens, or max".into()),
        }
    }
}

impl ValueEnum for Instructions {
    fn value_variants<'a>() -> &'a [Self] {
        &Instructions::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Instructions::Avx512 => "avx512",
            Instructions::Avx2 => "avx2",
            Instructions::NeonDotprod => "neon-dotprod",
            Instructions::Neon => "neon",
            Instructions::Simd128 => "simd128",
            Instructions::Plain => "plain",
        }))
    }
}

impl ValueEnum for BackendKind {
    fn value_variants<'a>() -> &'a [Self] {
        &[BackendKind::Auto, BackendKind::Wgpu, BackendKind::Cpu, BackendKind::Mlx]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            BackendKind::Auto => "auto",
            BackendKind::Wgpu => "wgpu",
            BackendKind::Cpu => "cpu",
            BackendKind::Mlx => "mlx",
        }))
    }
}

impl ValueEnum for Quantize {
    fn value_variants<'a>() -> &'a [Self] {
        &[Quantize::Auto, Quantize::Int4, Quantize::Int8, Quantize::None]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Quantize::Auto => PossibleValue::new("auto")
                .help("int4 if all matrices are full-precision, else none"),
            Quantize::Int4 => {
                PossibleValue::new("int4").help("Layers in int4, embedding and lm_head in int8")
            }
            Quantize::Int8 => PossibleValue::new("int8").help("All matrices in int8"),
            Quantize::None => PossibleValue::new("none").help("As stored"),
        })
    }
}

impl ValueEnum for CacheType {
    fn value_variants<'a>() -> &'a [Self] {
        &[CacheType::F16, CacheType::F32]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            CacheType::F16 => "f16",
            CacheType::F32 => "f32",
        }))
    }
}
