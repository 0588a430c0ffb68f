//! The operations of a forward pass, each one call of MLX. The comments give the shapes.

use std::{cell::RefCell, collections::BTreeMap};

use crate::error::Result;
pub use crate::mlx::array::{Array, Dtype, async_eval};
use crate::mlx::array::{dims, pointer_or_null};
use crate::mlx::ffi::{self, Pointer};

thread_local! {
    static CALLS: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// The operations that this thread has called since the last such request, by name. They reveal an
/// inefficient composition of a layer on every device. MLX's own graph would not, because it splits
/// some operations on a CPU.
pub fn take_calls() -> BTreeMap<&'static str, usize> {
    CALLS.take()
}

/// Calls `$function` of the shim and counts it.
macro_rules! call {
    ($function:ident($($argument:expr),*)) => {{
        CALLS.with_borrow_mut(|calls| *calls.entry(stringify!($function)).or_default() += 1);
        let shim = ffi::shim()?;
        // SAFETY: all pointers are those of live arrays, or null where MLX accepts it. All lengths
        // are those of slices.
        Array::made(shim, unsafe { (shim.$function)($($argument),*) })
    }};
}

/// Which keys the queries see.
pub enum Mask {
    /// All.
    None,
    /// The last query sees all keys, each query before it one fewer.
    Causal,
    /// True where a query (row) sees a key (column).
    Bool(Array),
}

/// Weights in MLX's affine form: `w = scale·q + bias` with unsigned q of `bits` bits.
pub struct Quantized {
    /// `[rows, cols·bits/32]`, the first column lowest in a word.
    pub words: Array,
    /// `[rows, cols/group]`
    pub scales: Array,
    /// `[rows, cols/group]`
    pub biases: Array,
    pub group: usize,
    pub bits: usize,
}

impl Array {
    /// `self` `[rows, cols]` times the transpose of `w` `[out, cols]`: `[rows, out]`.
    pub fn matmul(&self, w: &Array) -> Result<Array> {
        call!(matmul(self.pointer(), w.pointer()))
    }

    /// [`Array::matmul`] with quantized weights.
    pub fn quantized_matmul(&self, w: &Quantized) -> Result<Array> {
        let [words, scales, biases] = [&w.words, &w.scales, &w.biases].map(Array::pointer);
        call!(quantized_matmul(
            self.pointer(),
            words,
            scales,
            biases,
            w.group as i32,
            w.bits as i32
        ))
    }

    /// `self` `[rows, share, 1, cols]` times the transposes of the matrices that `chosen`
    /// `[rows, top_k]` selects of `w` `[experts · features, cols]`: `[rows, top_k, 1, features]`.
    pub fn gather_matmul(&self, w: &Array, chosen: &Array, experts: usize) -> Result<Array> {
        let none = pointer_or_null(None);
        let [x, w, chosen] = [self, w, chosen].map(Array::pointer);
        call!(gather_matmul(x, w, none, none, chosen, experts as i32, 0, 0))
    }

    /// [`Array::gather_matmul`] with quantized weights.
    pub fn gather_quantized_matmul(
        &self,
        w: &Quantized,
        chosen: &Array,
        experts: usize,
    ) -> Result<Array> {
        let [words, scales, biases] = [&w.words, &w.scales, &w.biases].map(Array::pointer);
        call!(gather_matmul(
            self.pointer(),
            words,
            scales,
            biases,
            chosen.pointer(),
            experts as i32,
            w.group as i32,
            w.bits as i32
        ))
    }

    /// The numbers of the `count` largest elements of each row, in any order, as u32.
    pub fn top_k(&self, count: usize) -> Result<Array> {
        call!(top_k(self.pointer(), count as i32))
    }

    /// The softmax over the chosen elements of each row, times the `scales` of the chosen.
    pub fn chosen_weights(&self, chosen: &Array, scales: &Array) -> Result<Array> {
        call!(chosen_weights(self.pointer(), chosen.pointer(), scales.pointer()))
    }

    /// The sum of `[rows, top_k, cols]` over the second axis, times `weights` `[rows, top_k]`.
    pub fn weighted_sum(&self, weights: &Array) -> Result<Array> {
        call!(weighted_sum(self.pointer(), weights.pointer()))
    }

    /// The rows of a matrix that `rows` (u32) selects.
    pub fn take(&self, rows: &Array) -> Result<Array> {
        call!(take(self.pointer(), rows.pointer()))
    }

    /// RMS norm over the last axis. `weight` is used as it is.
    pub fn rms_norm(&self, weight: Option<&Array>, eps: f32) -> Result<Array> {
        call!(rms_norm(self.pointer(), pointer_or_null(weight), eps))
    }

    /// Rotates `[1, heads, rows, dims]`, row r at position `offset + r`. Dims i and i + dims/2
    /// rotate by position / periods[i].
    pub fn rope(&self, periods: &Array, dims: usize, offset: usize) -> Result<Array> {
        call!(rope(self.pointer(), periods.pointer(), dims as i32, offset as i32))
    }

    /// Attention of queries `[1, heads, rows, dims]` over `k` and `v` `[1, kv_heads, keys, dims]`.
    /// Returns the shape of the queries.
    pub fn sdpa(&self, k: &Array, v: &Array, scale: f32, mask: &Mask) -> Result<Array> {
        let (causal, mask) = match mask {
            Mask::None => (0, None),
            Mask::Causal => (1, None),
            Mask::Bool(mask) => (0, Some(mask)),
        };
        call!(sdpa(self.pointer(), k.pointer(), v.pointer(), scale, causal, pointer_or_null(mask)))
    }

    /// The elements in `start..stop` of each axis.
    pub fn slice(&self, start: &[usize], stop: &[usize]) -> Result<Array> {
        let (start, stop) = (dims(start)?, dims(stop)?);
        call!(slice(self.pointer(), start.as_ptr(), stop.as_ptr(), start.len().min(stop.len())))
    }

    /// The array with the elements in `start..stop` replaced. It takes `self`, so that MLX can
    /// write in place. With another reference to the array, MLX copies all of it.
    pub fn slice_update(self, update: &Array, start: &[usize], stop: &[usize]) -> Result<Array> {
        let (start, stop) = (dims(start)?, dims(stop)?);
        let len = start.len().min(stop.len());
        call!(slice_update(self.pointer(), update.pointer(), start.as_ptr(), stop.as_ptr(), len))
    }

    pub fn reshape(&self, shape: &[usize]) -> Result<Array> {
        let shape = dims(shape)?;
        call!(reshape(self.pointer(), shape.as_ptr(), shape.len()))
    }

    /// `[1, a, b, n]` as `[1, b, a, n]`.
    pub fn swap_heads(&self) -> Result<Array> {
        call!(swap_heads(self.pointer()))
    }

    /// The arrays one after another along their first axis.
    pub fn concatenate(arrays: &[Array]) -> Result<Array> {
        let pointers: Vec<Pointer> = arrays.iter().map(Array::pointer).collect();
        call!(concatenate(pointers.as_ptr(), pointers.len()))
    }

    /// `[rows, cols]` with zeros in further columns.
    pub fn pad_columns(&self, columns: usize) -> Result<Array> {
        call!(pad_columns(self.pointer(), columns as i32))
    }

    pub fn add(&self, other: &Array) -> Result<Array> {
        call!(add(self.pointer(), other.pointer()))
    }

    /// Times a number.
    pub fn scale(&self, factor: f32) -> Result<Array> {
        call!(scale(self.pointer(), factor))
    }

    /// `gelu(self) · up`, with the tanh form of GELU. `fused` makes one kernel of it, which MLX
    /// compiles on first use.
    pub fn gelu_mul(&self, up: &Array, fused: bool) -> Result<Array> {
        call!(gelu_mul(self.pointer(), up.pointer(), fused as i32))
    }

    /// `cap · tanh(self / cap)`
    pub fn softcap(&self, cap: f32) -> Result<Array> {
        call!(softcap(self.pointer(), cap))
    }

    pub fn astype(&self, dtype: Dtype) -> Result<Array> {
        call!(astype(self.pointer(), dtype as i32))
    }

    /// Index of the largest element along the last axis, as u32.
    pub fn argmax(&self) -> Result<Array> {
        call!(argmax(self.pointer()))
    }

    /// Random u32 words, the same for the same seed.
    pub fn random_words(shape: &[usize], seed: u64) -> Result<Array> {
        let shape = dims(shape)?;
        call!(random_words(shape.as_ptr(), shape.len(), seed))
    }
}

impl Quantized {
    /// The rows that `rows` (u32, `[n]`) selects, `[n, cols]`.
    pub fn take(&self, rows: &Array) -> Result<Array> {
        let [words, scales, biases] =
            [self.words.take(rows)?, self.scales.take(rows)?, self.biases.take(rows)?];
        let (group, bits) = (self.group as i32, self.bits as i32);
        call!(dequantize(words.pointer(), scales.pointer(), biases.pointer(), group, bits))
    }
}
