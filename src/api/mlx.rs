//! MLX, in programs built with it and without.

use crate::Result;
use crate::backend::Backend;
#[cfg(feature = "mlx")]
use crate::mlx::{Activations, MlxBackend, MlxOptions};
use crate::model::{source::TensorSource, weights::LoadOptions};

/// Whether [`crate::backend::BackendKind::Auto`] takes MLX, which it does on a Mac's GPU. Logs a
/// warning if MLX is broken.
pub(crate) fn is_preferred() -> bool {
    #[cfg(all(feature = "mlx", target_os = "macos"))]
    match crate::mlx::facts() {
        Ok(facts) => return facts.metal,
        Err(error) => log::warn!("{error}; running on wgpu"),
    }
    false
}

/// Options of the backend; `exact` computes in f32.
#[cfg(feature = "mlx")]
pub(crate) fn options(exact: bool) -> MlxOptions {
    MlxOptions { activations: exact.then_some(Activations::F32), ..MlxOptions::default() }
}

/// Loads a checkpoint.
#[cfg(feature = "mlx")]
pub(crate) async fn load(
    source: &dyn TensorSource,
    load: &LoadOptions,
    exact: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<Box<dyn Backend>> {
    Ok(Box::new(MlxBackend::load(source, load, options(exact), progress).await?))
}

/// Errors: this program was built without MLX.
#[cfg(not(feature = "mlx"))]
pub(crate) async fn load(
    _: &dyn TensorSource,
    _: &LoadOptions,
    _: bool,
    _: &mut dyn FnMut(u64),
) -> Result<Box<dyn Backend>> {
    Err(absent())
}

/// The error that this program was built without MLX.
#[cfg(not(feature = "mlx"))]
pub(crate) fn absent() -> crate::Error {
    crate::Error::Input(
        "this program was built without MLX: build it with \
         `cargo build --release --features mlx`"
            .into(),
    )
}
