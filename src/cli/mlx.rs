//! MLX on the command line, in programs with it and without.

use serde_json::Value;

use crate::{
    backend::Backend,
    error::Result,
    model::{config::ModelConfig, weights::LoadOptions},
};

#[cfg(feature = "mlx")]
mod built {
    use serde_json::json;

    use super::{Backend, LoadOptions, ModelConfig, Result, Value};
    use crate::{
        api,
        mlx::{self, MlxBackend},
    };

    /// A model of random weights.
    pub async fn synthetic(
        config: ModelConfig,
        load: &LoadOptions,
        exact: bool,
        seed: u64,
    ) -> Result<Box<dyn Backend>> {
        let options = api::mlx::options(exact);
        Ok(Box::new(MlxBackend::synthetic(config, load, options, seed).await?))
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
    use super::{Backend, LoadOptions, ModelConfig, Result, Value};
    use crate::api;

    pub async fn synthetic(
        _: ModelConfig,
        _: &LoadOptions,
        _: bool,
        _: u64,
    ) -> Result<Box<dyn Backend>> {
        Err(api::mlx::absent())
    }

    pub fn facts() -> Option<Value> {
        None
    }
}

pub use built::{facts, synthetic};
