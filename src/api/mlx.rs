//! MLX, in programs with it and without.

use crate::{
    backend::Backend,
    error::Result,
    model::{source::TensorSource, weights::LoadOptions},
};

#[cfg(feature = "mlx")]
mod built {
    use super::{Backend, LoadOptions, Result, TensorSource};
    use crate::mlx::{self, Activations, MlxBackend, MlxOptions};

    pub fn options(exact: bool) -> MlxOptions {
        MlxOptions { activations: exact.then_some(Activations::F32), ..MlxOptions::default() }
    }

    pub fn is_preferred() -> bool {
        if !cfg!(target_os = "macos") {
            return false;
        }
        match mlx::facts() {
            Ok(facts) => facts.metal,
            Err(error) => {
                log::warn!("{error}; running on wgpu");
                false
            }
        }
    }

    pub async fn load(
        source: &dyn TensorSource,
        load: &LoadOptions,
        exact: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(MlxBackend::load(source, load, options(exact), progress).await?))
    }
}

#[cfg(not(feature = "mlx"))]
mod built {
    use super::{Backend, LoadOptions, Result, TensorSource, absent};

    pub fn is_preferred() -> bool {
        false
    }

    pub async fn load(
        _: &dyn TensorSource,
        _: &LoadOptions,
        _: bool,
        _: &mut dyn FnMut(u64),
    ) -> Result<Box<dyn Backend>> {
        Err(absent())
    }
}

/// That MLX is not a part of this program.
#[cfg(not(feature = "mlx"))]
pub(crate) fn absent() -> crate::Error {
    crate::Error::Input(
        "this program was built without MLX: build it with \
         `cargo build --release --features mlx`"
            .into(),
    )
}

/// Whether [`crate::backend::BackendKind::Auto`] takes MLX: on a Mac's GPU. A broken MLX is logged.
pub(crate) use built::is_preferred;
/// Loads a checkpoint; the flag asks for f32.
pub(crate) use built::load;
/// Options of the backend; the flag asks for f32.
#[cfg(feature = "mlx")]
pub(crate) use built::options;
