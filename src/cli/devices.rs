//! `gemma4-wgpu devices`

use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

use crate::cli::{Exit, mlx};
use crate::error::Error;
use crate::gpu::{self, AdapterFacts, KernelOptions};

/// List the adapters and the facts that choose their kernels, and MLX's device if it is built in
#[derive(Args)]
#[command(after_help = KernelOptions::help())]
pub struct DevicesArgs {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

pub fn run(args: &DevicesArgs) -> Result<(), Exit> {
    let adapters = pollster::block_on(gpu::adapters());
    let mut list = adapters.iter().map(facts).collect::<Result<Vec<_>, _>>()?;
    list.extend(mlx::facts());
    let text = match list.as_slice() {
        list if args.json => format!("{:#}\n", Value::from(list)),
        [] => "no adapter; only --backend cpu can run\n".to_owned(),
        list => list.iter().map(describe).collect::<Vec<_>>().join("\n"),
    };
    io::stdout().write_all(text.as_bytes()).map_err(Exit::from_stdout)
}

/// An adapter's facts, and the kernel options that they choose.
fn facts(adapter: &AdapterFacts) -> Result<Value, Error> {
    let mut facts = serde_json::to_value(adapter).map_err(|error| {
        Error::Device(format!("the adapters' facts cannot be written: {error}"))
    })?;
    facts["kernels"] = KernelOptions::UNSET.resolve(adapter)?.to_string().into();
    Ok(facts)
}

/// One adapter: its number and name, then a line for each fact.
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
