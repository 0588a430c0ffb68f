//! The command line: one file per subcommand.

mod answer;
mod bench;
mod chat;
mod convert;
mod devices;
mod eval;
mod form;
mod inspect;
mod interrupt;
mod logits_file;
mod memory;
mod mlx;
mod model;
mod progress;
mod pull;
mod quantize;
mod report;
mod run;
#[cfg(feature = "server")]
mod serve;
#[cfg(feature = "server")]
mod serve_settings;
mod session;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

#[cfg(feature = "server")]
use clap::CommandFactory;
use clap::{Parser, Subcommand};

use crate::Error;

/// Runs Gemma 4 and Gemma 3 text models in int4 on any GPU.
#[derive(Parser)]
#[command(name = "gemma4-wgpu", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    #[cfg(feature = "server")]
    Serve(Box<serve::ServeArgs>),
    Devices(devices::DevicesArgs),
    Eval(eval::EvalArgs),
    Bench(Box<bench::BenchArgs>),
    Pull(pull::PullArgs),
    Quantize(quantize::QuantizeArgs),
    Inspect(Box<inspect::InspectArgs>),
    Convert(convert::ConvertArgs),
}

/// The log filter unless `RUST_LOG` is set. The Vulkan loader reports a missing driver as an error.
/// For this program that is only a choice between adapters, or an error of its own.
const LOG_FILTER: &str = "error,gemma4_wgpu=warn,wgpu_hal::vulkan::instance=off";

/// Why a command ended early.
enum Exit {
    Failed(Error),
    /// Ctrl-C.
    Interrupted,
    /// The reader of standard output is gone.
    BrokenPipe,
}

impl From<Error> for Exit {
    fn from(error: Error) -> Self {
        Exit::Failed(error)
    }
}

impl Exit {
    /// The meaning of a failed write to standard output.
    fn from_stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::BrokenPipe,
            _ => Exit::Failed(Error::Io { path: "standard output".into(), source: error }),
        }
    }
}

/// Runs the program. The exit code is 0 on success, 1 on failure, 2 for wrong usage, 130 after
/// Ctrl-C. A failure writes one line to stderr. `RUST_LOG` sets the log filter (env_logger).
pub fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => return failed(&error),
    };
    let cli = Cli::parse_from(arguments);
    start_log();
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args),
        #[cfg(feature = "server")]
        Command::Serve(args) => serve::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
    };
    match outcome {
        Ok(()) | Err(Exit::BrokenPipe) => ExitCode::SUCCESS,
        Err(Exit::Interrupted) => ExitCode::from(interrupt::EXIT_CODE),
        Err(Exit::Failed(error)) => failed(&error),
    }
}

fn failed(error: &Error) -> ExitCode {
    eprintln!("error: {}", one_line(error));
    ExitCode::FAILURE
}

/// The program's arguments, with those of a server's file and variables.
fn arguments() -> Result<Vec<OsString>, Error> {
    #[cfg(feature = "server")]
    return serve_settings::expand(std::env::args_os(), &Cli::command(), |name| {
        std::env::var_os(name)
    });
    #[cfg(not(feature = "server"))]
    Ok(std::env::args_os().collect())
}

/// Logs to stderr. Without `RUST_LOG` these are warnings, in the format of the program's own lines.
fn start_log() {
    let mut log =
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(LOG_FILTER));
    if std::env::var_os("RUST_LOG").is_none() {
        log.format(|out, record| match record.level() {
            log::Level::Warn => writeln!(out, "warning: {}", record.args()),
            level => writeln!(out, "{}: {}", level.as_str().to_lowercase(), record.args()),
        });
    }
    log.init();
}

/// The error as a single line, for any text from libraries.
fn one_line(error: &Error) -> String {
    let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    // Text from a file must not control the terminal.
    line.replace(char::is_control, "\u{fffd}")
}
