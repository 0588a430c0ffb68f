//! `gemma4-wgpu quantize`

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

use super::{
    Exit,
    interrupt::{self, Work},
    model::byte_bar,
};
use crate::{Error, checkpoint::Checkpoint, quant::Quantize, quantize::write_packed, weights};

/// Write a packed int4 or int8 checkpoint of a full-precision one
///
/// The result loads faster, takes a quarter of the space and computes the same as the original quantized while
/// loading. It is written tensor by tensor.
#[derive(Args)]
pub struct QuantizeArgs {
    /// Hugging Face directory in f32, f16 or bf16
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,
    /// Directory to write to; it must be new or empty
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// What the weights become
    #[arg(long, value_enum, default_value_t)]
    quantize: Precision,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// What weights become.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Precision {
    /// Layers in int4, embedding and lm_head in int8
    #[default]
    Int4,
    /// All matrices in int8
    Int8,
}

pub fn run(args: &QuantizeArgs) -> Result<(), Exit> {
    let quantize = match args.quantize {
        Precision::Int4 => Quantize::Int4,
        Precision::Int8 => Quantize::Int8,
    };
    if !args.model.is_dir() {
        return Err(Error::Input(format!("{} is not a directory", args.model.display())).into());
    }
    let checkpoint = Checkpoint::open(&args.model)?;
    if !checkpoint.is_hugging_face() {
        let reason = format!("{} holds GGUF, which is quantized already and runs as it is", args.model.display());
        return Err(Error::Unsupported(reason).into());
    }
    let bar = byte_bar("quantizing", weights::load_bytes(&checkpoint), args.quiet);
    interrupt::install()?;
    let work = Work::begin();
    let mut progress = |bytes| {
        bar.inc(bytes);
        !work.stopped()
    };
    let written = pollster::block_on(write_packed(&checkpoint, quantize, &args.model, &args.output, &mut progress));
    bar.finish_and_clear();
    let bytes = match written {
        Err(_) if work.stopped() => return Err(Exit::Interrupted),
        written => written?,
    };
    let line = format!("{}: {bytes} bytes of weights", args.output.display());
    writeln!(io::stdout(), "{line}").map_err(Exit::from_stdout)
}
