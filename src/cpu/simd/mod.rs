//! The operations of the fast path, for each set of instructions that a processor may have.
//!
//! Every set has the same plain loops, compiled with its instructions. Its file adds the integer
//! dot products, which compilers do not find. Only these files have unsafe code.

mod activations;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon_dotprod;
mod plain;
mod tile;
mod unpack;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;
mod words;

pub use activations::Activations;
pub use attention::{Attend, Partial};
#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub use neon::Neon;
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub use neon_dotprod::NeonDotprod;
pub use plain::Plain;
pub use tile::{FEATURES, Lanes, PackedTile, Tile, TileScratch};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::Simd128;
#[cfg(target_arch = "x86_64")]
use words::register;

/// The operations with one set of instructions.
pub trait InstructionSet: Send + Sync {
    /// Rows `[rows, cols]` as int8.
    fn quantize(&self, x: &[f32], cols: usize) -> Activations;

    /// The products of a tile of packed integers with all rows of activations, `[rows, FEATURES]`.
    fn tile(
        &self,
        weights: PackedTile<'_>,
        x: &Activations,
        scratch: &mut TileScratch,
        out: &mut [f32],
    );

    /// The products of a row of f32 weights with all rows of `x`. The product with row r is stored
    /// in `out[r · stride]`.
    fn row_f32(&self, weights: &[f32], x: &[f32], out: &mut [f32], stride: usize);

    /// Attention of a task's queries over its keys: `[rows, heads of the KV head]`.
    fn attend(&self, task: &Attend<'_>) -> Vec<Partial>;

    /// As [`crate::cpu::ops::gelu_mul`].
    fn gelu_mul(&self, gate: &mut [f32], up: &[f32]);

    /// As [`crate::cpu::ops::softcap`].
    fn softcap(&self, logits: &mut [f32], cap: f32);
}

/// Methods that are compiled with the instructions of the attributes in braces.
macro_rules! compiled {
    (
        $attributes:tt
        $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? $body:block)*
    ) => {
        $($crate::cpu::simd::compiled! {
            @one $attributes $name [$($arg: $type),*] [$(-> $result)?] $body
        })*
    };
    (
        @one {$($attributes:tt)*} $name:ident [$($arg:ident: $type:ty),*] [$($result:tt)*]
        $body:block
    ) => {
        #[allow(unused_unsafe)]
        fn $name(&self, $($arg: $type),*) $($result)* {
            $($attributes)*
            fn run($($arg: $type),*) $($result)* $body
            // SAFETY: a value of the type proves that the processor has the instructions.
            unsafe { run($($arg),*) }
        }
    };
}
use compiled;

/// Implements [`InstructionSet`] with the plain loops of this module, compiled with the
/// instructions of the attributes in braces. It calls the functions `levels` and `tile` beside it.
/// `$words` are its [`words::Words`], and `$mul_add` computes `a·b + c`.
macro_rules! implement {
    ($set:ident, $words:ty, $mul_add:expr, $attributes:tt) => {
        impl $crate::cpu::simd::InstructionSet for $set {
            $crate::cpu::simd::compiled! {
                $attributes

                fn quantize(x: &[f32], cols: usize) -> Activations {
                    $crate::cpu::simd::activations::quantize(x, cols)
                }

                fn tile(
                    weights: $crate::cpu::simd::PackedTile<'_>,
                    x: &Activations,
                    scratch: &mut $crate::cpu::simd::TileScratch,
                    out: &mut [f32]
                ) {
                    let levels = |quads: &mut [Lanes<u32>]| levels(quads);
                    let tile = $crate::cpu::simd::unpack::unpack::<$words>(
                        weights, x.groups, scratch, levels,
                    );
                    self::tile(&tile, x, out)
                }

                fn row_f32(weights: &[f32], x: &[f32], out: &mut [f32], stride: usize) {
                    $crate::cpu::simd::float::row(weights, x, out, stride, $mul_add)
                }

                fn attend(
                    task: &$crate::cpu::simd::Attend<'_>
                ) -> Vec<$crate::cpu::simd::Partial> {
                    $crate::cpu::simd::attention::attend(task, $mul_add)
                }

                fn gelu_mul(gate: &mut [f32], up: &[f32]) {
                    $crate::cpu::simd::float::gelu_mul(gate, up)
                }

                fn softcap(logits: &mut [f32], cap: f32) {
                    $crate::cpu::simd::float::softcap(logits, cap)
                }
            }
        }
    };
}
use implement;
