//! MLX on the command line, in programs with it and without.

use serde_json::Value;

use crate::{
    backend::Backend,
    error::Result,
    model::{config::ModelConfig, source::TensorSource, weights::LoadOptions},
};

#[cfg(feature = "mlx")]
mod built {
    use serde_json::json;

    use super::*;
    use crate::mlx::{self, Activations, MlxBackend, MlxOptions};

    fn options(exact: bool) -> MlxOptions {
        MlxOptions { activations: exact.then_some(Activations::F32), ..MlxOptions::default() }
    }

    /// Whether `auto` takes MLX: on a Mac's GPU. A broken MLX is told of.
    pub fn is_preferred() -> bool {
        if !cfg!(target_os = "macos") {
            return false;
        }
        match mlx::facts() {
            Ok(facts) => facts.metal,
            Err(error) => {
                eprintln!("warning: {error}; running on wgpu");
                false
            }
        }
    }

    /// Loads a checkpoint; `exact` computes in f32.
    pub async fn load(
        source: &dyn TensorSource,
        load: &LoadOptions,
        exact: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(MlxBackend::load(source, load, options(exact), progress).await?))
    }

    /// A model of random weights.
    pub async fn synthetic(
        config: ModelConfig,
        load: &LoadOptions,
        exact: bool,
        seed: u64,
    ) -> Result<Box<dyn Backend>> {
        Ok(Box::new(MlxBackend::synthetic(config, load, options(exact), seed).await?))
    }

    /// MLX and its device, as `devices` lists them.
    pub fn facts() -> Option<Value> {
        Some(match mlx::facts() {
            Ok(facts) => json!({
                "index": "mlx",
                "name": facts.device,
                "mlx_version": facts.version,
                "metal": facts.metal,
                "memory_limit_bytes": facts.memory_limit,
            }),
            Err(error) => {
                json!({ "index": "mlx", "name": "cannot run", "reason": error.to_string() })
            }
        })
    }
}

#[cfg(not(feature = "mlx"))]
mod built {
    use super::{Backend, LoadOptions, ModelConfig, Result, TensorSource, Value};
    use crate::error::Error;

    fn absent<T>() -> Result<T> {
        Err(Error::Input(
            "this program was built without MLX: \
             build it with `cargo build --release --features mlx`"
                .into(),
        ))
    }

    pub fn is_preferred() -> bool {
        false
    }

    pub async fn load(
        _: &dyn TensorSource,
        _: &LoadOptions,
        _: bool,
        _: &mut dyn FnMut(u64),
    ) -> Result<Box<dyn Backend>> {
        absent()
    }

    pub async fn synthetic(
        _: ModelConfig,
        _: &LoadOptions,
        _: bool,
        _: u64,
    ) -> Result<Box<dyn Backend>> {
        absent()
    }

    pub fn facts() -> Option<Value> {
        None
    }
}

pub use built::{facts, is_preferred, load, synthetic};
