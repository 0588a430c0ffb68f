//! Number formats: how checkpoints store weights ([`Dtype`]) and how backends hold them
//! ([`PackFormat`]).
//!
//! Knows nothing of files or devices.

use std::{borrow::Cow, fmt, str::FromStr};

mod direct;
mod gguf_blocks;
pub mod grouped;
pub mod methods;
mod pack;
mod q4_k;
pub mod recipe;
mod round;
mod steps;
mod unpack;

pub use gguf_blocks::{IQ4_LEVELS, native_format};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use pack::pack_into;
pub use pack::pack_rows;
pub use q4_k::blocks as q4_k_blocks;
pub use unpack::dequantize;

/// Element type of a stored tensor: plain floats, GGUF block formats, or rows as a backend holds
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum Dtype {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ4_NL,
    IQ4_XS,
    /// A matrix of this project's own safetensors form. Each row has its data words, then its scale
    /// words.
    Packed(PackFormat),
}

impl Dtype {
    /// Elements in one block (1 for plain types and packed rows, which have no blocks).
    pub fn block_len(self) -> usize {
        match self {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Packed(_) => 1,
            Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q8_0 | Dtype::IQ4_NL => {
                32
            }
            Dtype::Q4_K | Dtype::Q5_K | Dtype::Q6_K | Dtype::IQ4_XS => 256,
        }
    }

    /// Bytes of one block; 0 for packed rows.
    pub fn block_bytes(self) -> usize {
        match self {
            Dtype::Packed(_) => 0,
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::Q4_0 | Dtype::IQ4_NL => 18,
            Dtype::Q4_1 => 20,
            Dtype::Q5_0 => 22,
            Dtype::Q5_1 => 24,
            Dtype::Q8_0 => 34,
            Dtype::Q4_K => 144,
            Dtype::Q5_K => 176,
            Dtype::Q6_K => 210,
            Dtype::IQ4_XS => 136,
        }
    }

    /// Bytes of a row of `elements` elements. Errors unless they fill whole blocks and the bytes
    /// can be counted.
    pub fn bytes_of(self, elements: usize) -> Result<usize, String> {
        match (self, elements % self.block_len()) {
            // No address space holds a row of that length. Below it, padding and bits cannot
            // overflow.
            (Dtype::Packed(_), _) if elements > usize::MAX / 64 => {
                Err(format!("a row of {elements} elements"))
            }
            (Dtype::Packed(format), _) => Ok(format.row_bytes(elements)),
            (_, 0) => {
                (elements / self.block_len()).checked_mul(self.block_bytes()).ok_or_else(|| {
                    format!("{elements} elements ({self:?}) are more than an address space holds")
                })
            }
            _ => Err(format!(
                "{elements} elements do not fill blocks of {} ({self:?})",
                self.block_len()
            )),
        }
    }

    /// Bytes of a tensor of blocks, shape outermost first. `None` if they overflow or a row does
    /// not fill whole blocks.
    pub fn tensor_bytes(self, shape: &[usize]) -> Option<u64> {
        let elements =
            shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64))?;
        if !shape.last().unwrap_or(&1).is_multiple_of(self.block_len()) {
            return None;
        }
        (elements / self.block_len() as u64).checked_mul(self.block_bytes() as u64)
    }

    /// Whether the elements are plain floats.
    pub fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }
}

/// The name that GGUF and safetensors files use: `Q4_K`, `BF16`. Packed rows have their format's
/// name.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dtype::Packed(format) => format.fmt(f),
            dtype => fmt::Debug::fmt(dtype, f),
        }
    }
}

/// What full-precision matrices become while loading (`--quantize`). Tensors that the file stores
/// quantized keep their values in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quantize {
    /// `Int4` where all matrices of the file are floats. A file with quantized matrices keeps its
    /// floats, because its author left them so on purpose.
    #[default]
    Auto,
    /// int4 group 32 for the layers, int8 group 32 for the embedding and lm_head.
    Int4,
    /// int8 group 32 everywhere.
    Int8,
    /// As stored: f32, f16 or bf16.
    None,
}

impl fmt::Display for Quantize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Quantize::Auto => "auto",
            Quantize::Int4 => "int4",
            Quantize::Int8 => "int8",
            Quantize::None => "none",
        })
    }
}

impl FromStr for Quantize {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Quantize::Auto),
            "int4" => Ok(Quantize::Int4),
            "int8" => Ok(Quantize::Int8),
            "none" => Ok(Quantize::None),
            _ => Err(format!("unknown quantization {name:?}: use auto, int4, int8 or none")),
        }
    }
}

/// Rows are padded with zero weights to a multiple of this many columns.
pub const COLUMN_ALIGN: usize = 32;

/// Columns after padding.
pub fn padded_cols(cols: usize) -> usize {
    cols.next_multiple_of(COLUMN_ALIGN)
}

/// How a backend holds a weight matrix. In all formats a row is independent, so that rows can be
/// packed, uploaded and split in any slices.
///
/// * `F32`: word `k` of a row is weight k.
/// * `F16`, `BF16`: word `w` holds weights 2w (low half) and 2w+1 (high half).
/// * `Int { bits: 4 }`: word `w` holds q of weights 8w..8w+7; byte b holds weight 8w+b in its low
///   nibble and 8w+4+b in its high one; q is 0..=15.
/// * `Int { bits: 8 }`: word `w` holds q of weights 4w..4w+3, byte b weight 4w+b; q is an i8.
/// * `Int { bits: 6 }`, `Int { bits: 5 }`: first the low four bits of all q, laid out as for 4
///   bits. The high bits follow. Of 6 bits, byte b of word `w` holds those of weight 16w+4k+b in
///   bits 2k and 2k+1. Of 5 bits, it holds that of weight 32w+4k+b in bit k. Zeros fill up a
///   multiple of four words. q is in two's complement, or from 0 on with an offset.
/// * `Iq4`: nibbles as in `Int { bits: 4 }`. Each chooses one of [`IQ4_LEVELS`], which is q. Groups
///   of 32.
/// * `Q4K`: as `Int { bits: 4 }`, with offsets. Groups of 32, of which eight share the factors of
///   their scales and offsets.
///
/// A row's end may cut its last group short. Scales of a row without offsets: word `g/2` holds the
/// f16 scales of groups g (even: low half) and g+1. With offsets: word `g` holds group g's scale
/// (low half) and offset (high half).
///
/// `Q4K` has four words for eight groups, and also for fewer groups at a row's end. The first has d
/// (low half) and dmin (high half), both f16. The other three have a nibble for each group, group
/// 0's lowest. The second word has the lower four bits of s, and the third has those of m. The
/// fourth has the upper two bits of s (low) and of m (high).
/// Scale and offset are `d·s` and `−dmin·m`.
///
/// The weight is `scale·q + offset` with an offset. Without one it is `scale·(q−8)` for 4 bits, and
/// `scale·q` for more bits and `Iq4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PackFormat {
    F32,
    F16,
    BF16,
    Int { bits: u8, group: u32, offset: bool },
    Iq4,
    Q4K,
}

/// Columns that may share a scale.
const GROUPS: [u32; 4] = [16, 32, 64, 128];

/// The widest of the formats' groups that divides a group of this size, a multiple of 16.
fn group_for(columns: usize) -> u32 {
    GROUPS.into_iter().rev().find(|group| columns.is_multiple_of(*group as usize)).unwrap_or(16)
}

impl PackFormat {
    /// int4, group 32, symmetric: what Q4_0 holds and the default for full-precision layers.
    pub const INT4: PackFormat = PackFormat::Int { bits: 4, group: 32, offset: false };
    /// int8, group 32, symmetric.
    pub const INT8: PackFormat = PackFormat::Int { bits: 8, group: 32, offset: false };

    /// One format of each kind that backends run. Other widths and groups differ only in sizes.
    pub const ALL: [PackFormat; 16] = [
        PackFormat::F32,
        PackFormat::F16,
        PackFormat::BF16,
        PackFormat::INT4,
        PackFormat::Int { bits: 4, group: 32, offset: true },
        PackFormat::INT8,
        PackFormat::Int { bits: 8, group: 32, offset: true },
        PackFormat::Int { bits: 8, group: 16, offset: false },
        PackFormat::Int { bits: 5, group: 32, offset: false },
        PackFormat::Int { bits: 5, group: 32, offset: true },
        PackFormat::Int { bits: 6, group: 16, offset: false },
        PackFormat::Int { bits: 4, group: 64, offset: false },
        PackFormat::Int { bits: 4, group: 128, offset: true },
        PackFormat::Int { bits: 8, group: 128, offset: false },
        PackFormat::Iq4,
        PackFormat::Q4K,
    ];

    /// Bits of a stored integer, columns that share a scale, and whether groups have offsets;
    /// `None` for float formats.
    pub(crate) fn layout(self) -> Option<(u8, usize, bool)> {
        match self {
            PackFormat::Int { bits, group, offset } => Some((bits, group as usize, offset)),
            PackFormat::Iq4 => Some((4, 32, false)),
            PackFormat::Q4K => Some((4, 32, true)),
            PackFormat::F32 | PackFormat::F16 | PackFormat::BF16 => None,
        }
    }

    /// Columns that share a scale; `None` for float formats.
    pub fn group(self) -> Option<usize> {
        self.layout().map(|(_, group, _)| group)
    }

    /// The format with integers of 5 or 6 bits, or levels, as bytes. Each scale and offset is then
    /// an f16. Other formats stay the same.
    pub fn widened(self) -> PackFormat {
        match self {
            PackFormat::Int { bits: 5 | 6, group, offset } => {
                PackFormat::Int { bits: 8, group, offset }
            }
            PackFormat::Iq4 => PackFormat::INT8,
            PackFormat::Q4K => PackFormat::Int { bits: 4, group: 32, offset: true },
            format => format,
        }
    }

    /// u32 words of weights in a row.
    pub fn data_words(self, cols: usize) -> usize {
        let cols = padded_cols(cols);
        match self {
            PackFormat::F32 => cols,
            PackFormat::F16 | PackFormat::BF16 => cols / 2,
            // Whole runs of four words, as kernels load the low bits.
            PackFormat::Int { bits: bits @ (5 | 6), .. } => {
                (cols * bits as usize / 32).next_multiple_of(4)
            }
            PackFormat::Int { bits, .. } => cols * bits as usize / 32,
            PackFormat::Iq4 | PackFormat::Q4K => cols / 8,
        }
    }

    /// u32 words of scales in a row; 0 for float formats.
    pub fn scale_words(self, cols: usize) -> usize {
        let Some((_, group, offset)) = self.layout() else { return 0 };
        let groups = padded_cols(cols).div_ceil(group);
        match self {
            PackFormat::Q4K => padded_cols(cols).div_ceil(q4_k::COLUMNS) * q4_k::WORDS,
            _ if offset => groups,
            _ => groups.div_ceil(2),
        }
    }

    /// u32 words of scales that are read together. Layouts that interleave rows keep them together.
    pub fn scale_unit(self) -> usize {
        if self == PackFormat::Q4K { q4_k::WORDS } else { 1 }
    }

    /// Bytes of one row on the device.
    pub fn row_bytes(self, cols: usize) -> usize {
        4 * (self.data_words(cols) + self.scale_words(cols))
    }

    /// Bits of a weight, including its share of the scales but no padding.
    pub fn bits_per_weight(self) -> f32 {
        match self {
            PackFormat::F32 => 32.0,
            PackFormat::F16 | PackFormat::BF16 => 16.0,
            PackFormat::Int { bits, group, offset } => {
                bits as f32 + if offset { 32.0 } else { 16.0 } / group as f32
            }
            PackFormat::Iq4 | PackFormat::Q4K => 4.5,
        }
    }

    /// The q that stands for weight 0 in formats without offset: weights are `scale·(q −
    /// zero_point)`.
    fn zero_point(self) -> i8 {
        match self {
            PackFormat::Int { bits: 4, offset: false, .. } => 8,
            _ => 0,
        }
    }
}

/// `int4 g32`, `int6 g16`, `int4 g32+offset`, `iq4 g32`, `q4_k`, `f16`.
impl fmt::Display for PackFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackFormat::F32 => f.write_str("f32"),
            PackFormat::F16 => f.write_str("f16"),
            PackFormat::BF16 => f.write_str("bf16"),
            PackFormat::Int { bits, group, offset } => {
                write!(f, "int{bits} g{group}{}", if *offset { "+offset" } else { "" })
            }
            PackFormat::Iq4 => f.write_str("iq4 g32"),
            PackFormat::Q4K => f.write_str("q4_k"),
        }
    }
}

/// What [`PackFormat`]'s `Display` writes.
impl FromStr for PackFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let groups = GROUPS.into_iter().flat_map(|group| [(group, false), (group, true)]);
        let ints = groups.flat_map(|(group, offset)| {
            [4, 5, 6, 8].map(|bits| PackFormat::Int { bits, group, offset })
        });
        let mut formats = PackFormat::ALL.into_iter().chain(ints);
        formats
            .find(|format| format.to_string() == text)
            .ok_or_else(|| format!("unknown weight format {text:?}"))
    }
}

/// Consecutive rows of a packed matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedRows {
    pub format: PackFormat,
    pub rows: usize,
    /// Columns before padding.
    pub cols: usize,
    /// `[rows, data_words]`
    pub data: Vec<u32>,
    /// `[rows, scale_words]`
    pub scales: Vec<u32>,
}

impl PackedRows {
    /// The same weights in [`PackFormat::widened`], up to the rounding of `Q4K`'s scales and
    /// offsets to f16.
    pub fn widened(&self) -> Cow<'_, PackedRows> {
        let format = self.format.widened();
        if format == self.format {
            return Cow::Borrowed(self);
        }
        if self.format == PackFormat::Q4K {
            return Cow::Owned(PackedRows {
                format,
                data: self.data.clone(),
                scales: self.rounded_scales(),
                ..*self
            });
        }
        let mut data = Vec::with_capacity(self.rows * format.data_words(self.cols));
        for row in 0..self.rows {
            self.for_each_group(row, |_, q, _, _| {
                data.extend(q.as_chunks().0.iter().map(|q| u32::from_le_bytes(q.map(|q| q as u8))));
            });
        }
        Cow::Owned(PackedRows { format, data, scales: self.scales.clone(), ..*self })
    }

    /// Scale and offset of each group in a word, as f16.
    fn rounded_scales(&self) -> Vec<u32> {
        let mut scales = Vec::new();
        for row in 0..self.rows {
            self.for_each_group(row, |_, _, scale, offset| {
                let [scale, offset] =
                    [scale, offset].map(|step| half::f16::from_f32(step).to_bits() as u32);
                scales.push(scale | offset << 16);
            });
        }
        scales
    }

    /// The rows as [`Dtype::Packed`] stores them: each its data, then its scales.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (data_words, scale_words) =
            (self.format.data_words(self.cols), self.format.scale_words(self.cols));
        let mut bytes = Vec::with_capacity(4 * (self.data.len() + self.scales.len()));
        for row in 0..self.rows {
            let data = &self.data[row * data_words..][..data_words];
            let scales = &self.scales[row * scale_words..][..scale_words];
            bytes.extend(data.iter().chain(scales).flat_map(|word| word.to_le_bytes()));
        }
        bytes
    }
}
