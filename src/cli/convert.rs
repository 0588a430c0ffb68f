//! `gemma4-wgpu convert`

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::checkpoint::Checkpoint;
use crate::cli::Exit;
use crate::cli::interrupt::{self, Work};
use crate::cli::progress::byte_bar;
use crate::error::Error;
use crate::model::weights;
use crate::{convert, hub};

/// Write a packed checkpoint in the format of another program
///
/// Takes a directory that `quantize` wrote, or another directory of safetensors. Integers do not
/// change. As GGUF the result is the same model, as MLX its scales are rounded to bf16.
#[derive(Args)]
pub struct ConvertArgs {
    /// Directory of a quantized checkpoint
    #[arg(long, short, value_name = "DIR")]
    model: PathBuf,
    /// Directory to write to, which must be new or empty; for gguf, the new file
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// The program that will read the result
    #[arg(long, value_enum)]
    to: Form,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// llama.cpp, Ollama and others: one file
    Gguf,
    /// mlx-lm
    Mlx,
}

pub fn run(args: &ConvertArgs) -> Result<(), Exit> {
    let model = hub::resolve(&args.model)?;
    if !model.is_dir() {
        return Err(Error::Input(format!("{} is not a directory", model.display())).into());
    }
    let mut checkpoint = Checkpoint::open(&model)?;
    if !checkpoint.is_hugging_face() {
        let reason = format!(
            "{} holds GGUF, which has no config.json and tokenizer.json to take over",
            model.display()
        );
        return Err(Error::Unsupported(reason).into());
    }
    checkpoint.copy_reads();
    let bar = byte_bar("converting", weights::load_bytes(&checkpoint), args.quiet);
    interrupt::install()?;
    let work = Work::begin();
    let mut progress = |bytes| {
        bar.inc(bytes);
        !work.stopped()
    };
    let written = match args.to {
        Form::Gguf => {
            let text = checkpoint.text_assets()?;
            pollster::block_on(convert::to_gguf(&checkpoint, &text, &args.output, &mut progress))
        }
        Form::Mlx => {
            pollster::block_on(convert::to_mlx(&checkpoint, &model, &args.output, &mut progress))
        }
    };
    bar.finish_and_clear();
    let bytes = match written {
        Err(_) if work.stopped() => return Err(Exit::Interrupted),
        written => written?,
    };
    let line = format!("{}: {bytes} bytes of weights", args.output.display());
    writeln!(io::stdout(), "{line}").map_err(Exit::from_stdout)
}
