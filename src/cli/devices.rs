//! `gemma4-wgpu devices`

use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

use crate::{
    cli::{Exit, mlx},
    error::Error,
    gpu,
};

/// List the adapters with the facts that choose kernels, and MLX's device if it is built in
#[derive(Args)]
pub struct DevicesArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DevicesArgs) -> Result<(), Exit> {
    let adapters = pollster::block_on(gpu::adapters());
    let mut facts = serde_json::to_value(&adapters).map_err(|error| {
        Error::Device(format!("the adapters' facts cannot be written: {error}"))
    })?;
    facts.as_array_mut().into_iter().for_each(|list| list.extend(mlx::facts()));
    let text = match &facts {
        _ if args.json => format!("{facts:#}\n"),
        Value::Array(list) if list.is_empty() => {
            "no adapter; only --backend cpu can run\n".to_owned()
        }
        Value::Array(list) => list.iter().map(describe).collect::<Vec<_>>().join("\n"),
        other => other.to_string(),
    };
    io::stdout().write_all(text.as_bytes()).map_err(Exit::from_stdout)
}

/// One adapter: its number and name, then a line per fact.
fn describe(adapter: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Null => "unknown".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        other => other.to_string(),
    };
    let mut lines = format!("{}: {}\n", text(&adapter["index"]), text(&adapter["name"]));
    for (name, value) in adapter.as_object().into_iter().flatten() {
        if name != "index" && name != "name" {
            lines += &format!("   {:<28} {}\n", name.replace('_', " "), text(value));
        }
    }
    lines
}
