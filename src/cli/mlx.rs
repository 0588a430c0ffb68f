//! MLX on the command line, in programs built with it and without.

use serde_json::Value;

use crate::api;
use crate::backend::Backend;
use crate::error::Result;
use crate::model::{config::ModelConfig, weights::LoadOptions};

/// A model of random weights; `exact` computes in f32.
#[cfg(feature = "mlx")]
pub async fn synthetic(
    config: ModelConfig,
    load: &LoadOptions,
    exact: bool,
    seed: u64,
) -> Result<Box<dyn Backend>> {
    let options = api::mlx::options(exact);
    Ok(Box::new(crate::mlx::MlxBackend::synthetic(config, load, options, seed).await?))
}

/// Errors: this program was built without MLX.
#[cfg(not(feature = "mlx"))]
pub async fn synthetic(
    _: ModelConfig,
    _: &LoadOptions,
    _: bool,
    _: u64,
) -> Result<Box<dyn Backend>> {
    Err(api::mlx::absent())
}

/// MLX and its device, for the list of `devices`.
pub fn facts() -> Option<Value> {
    #[cfg(not(feature = "mlx"))]
    return None;
    #[cfg(feature = "mlx")]
    Some(match crate::mlx::facts() {
        Ok(facts) => serde_json::json!({
            "index": "mlx",
            "name": facts.device,
            "mlx_version": facts.version,
            "metal": facts.metal,
            "memory_limit_bytes": facts.memory_limit,
        }),
        Err(error) => {
            serde_json::json!({ "index": "mlx", "name": "cannot run", "reason": error.to_string() })
        }
    })
}
