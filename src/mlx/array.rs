//! [`Array`]: a node of MLX's graph, and its conversions from and to Rust.

use std::ptr;

use crate::error::{Error, Result};
use crate::mlx::ffi::{self, Pointer};

/// Element types that the backend uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    F32 = 0,
    F16 = 1,
    Bf16 = 2,
    U32 = 3,
    Bool = 4,
}

impl Dtype {
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 | Dtype::U32 => 4,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::Bool => 1,
        }
    }
}

/// A value of MLX's graph, which may not be computed yet.
pub struct Array(Pointer);

// SAFETY: an array is a reference to a counted node, and the counters are atomic. Graphs are built
// and evaluated on the one thread of `worker`. The exceptions are zeros and their contents, which
// are only memory.
unsafe impl Send for Array {}

impl Drop for Array {
    fn drop(&mut self) {
        if let Ok(shim) = ffi::shim() {
            // SAFETY: the pointer came from the shim, and is released here, once.
            unsafe { (shim.free)(self.0) }
        }
    }
}

impl Array {
    /// Another reference to the same array.
    pub fn try_clone(&self) -> Result<Array> {
        let shim = ffi::shim()?;
        // SAFETY: a live array.
        Array::made(shim, unsafe { (shim.clone)(self.0) })
    }

    /// The result of a function of the shim, or its error if the pointer is null.
    pub(super) fn made(shim: &ffi::Shim, pointer: Pointer) -> Result<Array> {
        if pointer.is_null() { Err(ffi::failure(shim)) } else { Ok(Array(pointer)) }
    }

    pub(super) fn pointer(&self) -> Pointer {
        self.0
    }

    /// Zeros in memory of their own.
    ///
    /// Errors: no memory, or a dimension beyond i32.
    pub fn zeros(shape: &[usize], dtype: Dtype) -> Result<Array> {
        let (shim, dims) = (ffi::shim()?, dims(shape)?);
        // SAFETY: `dims` has the length that is passed.
        Array::made(shim, unsafe { (shim.zeros)(dims.as_ptr(), dims.len(), dtype as i32) })
    }

    /// An array of these elements, row by row. Their bytes must fit the shape.
    pub fn new(bytes: &[u8], shape: &[usize], dtype: Dtype) -> Result<Array> {
        let mut array = Array::zeros(shape, dtype)?;
        if bytes.len() != array.bytes() {
            return Err(Error::Device(format!(
                "MLX: {} bytes for an array of {}",
                bytes.len(),
                array.bytes()
            )));
        }
        array.write(0, bytes)?;
        Ok(array)
    }

    /// Writes into zeros that no operation has used yet.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        let shim = ffi::shim()?;
        // SAFETY: `bytes` is valid, and the shim checks the place against the array.
        match unsafe { (shim.write)(self.0, offset, bytes.as_ptr().cast(), bytes.len()) } {
            0 => Ok(()),
            _ => Err(ffi::failure(shim)),
        }
    }

    /// Waits for the elements, f32 or u32 like the array, row by row.
    pub fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self) -> Result<Vec<T>> {
        let shim = ffi::shim()?;
        let mut values = vec![T::zeroed(); self.bytes() / size_of::<T>()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut values);
        // SAFETY: the shim writes only if the array has that number of bytes, and else fails.
        match unsafe { (shim.read)(self.0, bytes.as_mut_ptr().cast(), bytes.len()) } {
            0 => Ok(values),
            _ => Err(ffi::failure(shim)),
        }
    }

    /// Waits until the elements are computed.
    pub fn wait(&self) -> Result<()> {
        let shim = ffi::shim()?;
        // SAFETY: a live array.
        match unsafe { (shim.wait)(self.0) } {
            0 => Ok(()),
            _ => Err(ffi::failure(shim)),
        }
    }

    pub fn shape(&self) -> Vec<usize> {
        let Ok(shim) = ffi::shim() else { return Vec::new() };
        // SAFETY: these only read properties of a live array.
        unsafe { (0..(shim.ndim)(self.0)).map(|axis| (shim.dim)(self.0, axis) as usize).collect() }
    }

    /// `None` for a type that this backend does not use.
    pub fn dtype(&self) -> Option<Dtype> {
        let shim = ffi::shim().ok()?;
        let all = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::U32, Dtype::Bool];
        // SAFETY: this only reads a property of a live array.
        let number = unsafe { (shim.dtype)(self.0) };
        all.into_iter().find(|&dtype| dtype as i32 == number)
    }

    /// Bytes of the elements.
    pub fn bytes(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype().map_or(0, Dtype::bytes)
    }
}

/// Starts computing the arrays.
pub fn async_eval(arrays: &[&Array]) -> Result<()> {
    let shim = ffi::shim()?;
    let pointers: Vec<Pointer> = arrays.iter().map(|array| array.0).collect();
    // SAFETY: live arrays, in the number that is passed.
    match unsafe { (shim.async_eval)(pointers.as_ptr(), pointers.len()) } {
        0 => Ok(()),
        _ => Err(ffi::failure(shim)),
    }
}

/// A shape in MLX's type.
pub(super) fn dims(shape: &[usize]) -> Result<Vec<i32>> {
    let dim = |&dim: &usize| {
        i32::try_from(dim).map_err(|_| Error::Device(format!("MLX: a dimension of {dim}")))
    };
    shape.iter().map(dim).collect()
}

/// The array's pointer, or null.
pub(super) fn pointer_or_null(array: Option<&Array>) -> Pointer {
    array.map_or(ptr::null_mut(), Array::pointer)
}
