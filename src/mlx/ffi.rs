//! The shim (shim.cpp), loaded once at the first use of MLX.

use std::env;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::Write;
use std::sync::OnceLock;

use libloading::Library;

use crate::error::{Error, Result};

/// The library that build.rs made of shim.cpp, embedded in the program.
static SHIM: &[u8] = include_bytes!(env!("MLX_SHIM"));
/// The MLX of the build.
const BUILT_VERSION: &str = env!("MLX_SHIM_VERSION");
const BUILT_ROOT: &str = env!("MLX_SHIM_ROOT");

/// An `mlx::core::array`.
pub(super) type Pointer = *mut c_void;
type Dims = *const c_int;

/// Declares the functions of shim.cpp as fields. The library exports each as `g4_` plus its name.
macro_rules! functions {
    ($($name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {
        pub(super) struct Shim {
            $(pub $name: unsafe extern "C" fn($($type),*) $(-> $result)?,)*
            _library: Library,
        }

        impl Shim {
            /// # Safety
            ///
            /// `library` must be shim.cpp's, whose functions have these types.
            unsafe fn bind(library: Library) -> Result<Shim, libloading::Error> {
                Ok(Shim {
                    $(
                        // SAFETY: the caller guarantees the function's type.
                        $name: *unsafe {
                            library.get(concat!("g4_", stringify!($name)).as_bytes())
                        }?,
                    )*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    error() -> *const c_char;
    built_version() -> *const c_char;
    version() -> *const c_char;
    device(*const c_char, *mut c_char, usize) -> c_int;
    memory_limit() -> u64;
    active_memory() -> u64;
    peak_memory() -> u64;
    reset_peak_memory() -> c_int;
    set_cache_limit(u64) -> c_int;
    set_wired_limit(u64) -> c_int;
    zeros(Dims, usize, c_int) -> Pointer;
    write(Pointer, usize, *const c_void, usize) -> c_int;
    free(Pointer);
    clone(Pointer) -> Pointer;
    read(Pointer, *mut c_void, usize) -> c_int;
    wait(Pointer) -> c_int;
    dtype(Pointer) -> c_int;
    ndim(Pointer) -> usize;
    dim(Pointer, usize) -> c_int;
    async_eval(*const Pointer, usize) -> c_int;
    matmul(Pointer, Pointer) -> Pointer;
    quantized_matmul(Pointer, Pointer, Pointer, Pointer, c_int, c_int) -> Pointer;
    dequantize(Pointer, Pointer, Pointer, c_int, c_int) -> Pointer;
    gather_matmul(
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        Pointer,
        c_int,
        c_int,
        c_int
    ) -> Pointer;
    top_k(Pointer, c_int) -> Pointer;
    chosen_weights(Pointer, Pointer, Pointer) -> Pointer;
    weighted_sum(Pointer, Pointer) -> Pointer;
    take(Pointer, Pointer) -> Pointer;
    rms_norm(Pointer, Pointer, f32) -> Pointer;
    rope(Pointer, Pointer, c_int, c_int) -> Pointer;
    sdpa(Pointer, Pointer, Pointer, f32, c_int, Pointer) -> Pointer;
    slice(Pointer, Dims, Dims, usize) -> Pointer;
    slice_update(Pointer, Pointer, Dims, Dims, usize) -> Pointer;
    reshape(Pointer, Dims, usize) -> Pointer;
    swap_heads(Pointer) -> Pointer;
    concatenate(*const Pointer, usize) -> Pointer;
    pad_columns(Pointer, c_int) -> Pointer;
    add(Pointer, Pointer) -> Pointer;
    scale(Pointer, f32) -> Pointer;
    gelu_mul(Pointer, Pointer, c_int) -> Pointer;
    softcap(Pointer, f32) -> Pointer;
    astype(Pointer, c_int) -> Pointer;
    argmax(Pointer) -> Pointer;
    random_words(Dims, usize, u64) -> Pointer;
}

/// The shim. Errors, at each call, if MLX is missing or differs from that of the build.
pub(super) fn shim() -> Result<&'static Shim> {
    static LOADED: OnceLock<Result<Shim, String>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(|reason| Error::Device(reason.clone()))
}

fn load() -> Result<Shim, String> {
    // The program's code fits only this MLX. The remedies are to restore it or to build again.
    let fix = format!(
        "MLX {BUILT_VERSION} was in {BUILT_ROOT} when this program was built: install it there \
         again (python3 -m pip install), or build the program again"
    );
    let library =
        load_library().map_err(|reason| format!("MLX cannot be loaded: {reason}; {fix}"))?;
    // SAFETY: the library is shim.cpp's, and the list above repeats its signatures.
    let shim = unsafe { Shim::bind(library) }
        .map_err(|error| format!("MLX cannot be loaded: {error}; {fix}"))?;
    // SAFETY: both return a string that lives as long as the library.
    let [built, found] =
        unsafe { [(shim.built_version)(), (shim.version)()].map(|text| CStr::from_ptr(text)) };
    let (built, found) = (built.to_string_lossy(), found.to_string_lossy());
    match found.starts_with(&*built) {
        true => Ok(shim),
        false => Err(format!("MLX is {found} now; {fix}")),
    }
}

/// Loads the shim from a file, because systems load code only from files. The file can be deleted
/// once it is mapped.
fn load_library() -> Result<Library, String> {
    let place = || format!("a temporary file in {}", env::temp_dir().display());
    let mut file =
        tempfile::NamedTempFile::new().map_err(|error| format!("{}: {error}", place()))?;
    file.write_all(SHIM)
        .and_then(|()| file.flush())
        .map_err(|error| format!("{}: {error}", place()))?;
    // SAFETY: loading runs the initializers of the shim and of MLX, which have no preconditions.
    unsafe { Library::new(file.path()) }.map_err(|error| error.to_string())
}

/// The message of the calling thread's last failure.
pub(super) fn failure(shim: &Shim) -> Error {
    // SAFETY: the string belongs to this thread and is valid until its next failure.
    let text = unsafe { CStr::from_ptr((shim.error)()) }.to_string_lossy().into_owned();
    Error::Device(format!("MLX: {text}"))
}
