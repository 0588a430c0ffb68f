//! Options of `serve` from a file and from the environment. They become options of the command
//! line in front of those that are there, so that the latter take precedence.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command};

use crate::error::{Error, Result};

/// Before an option's name in a variable, as in `GEMMA4_WGPU_PORT`.
const PREFIX: &str = "GEMMA4_WGPU_";

/// The program's arguments, with further ones after `serve`. Variables take precedence over the
/// file of `--config`.
///
/// Errors: a file that cannot be read, or that names an unknown option.
pub fn expand(
    arguments: impl Iterator<Item = OsString>,
    program: &Command,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let is_serve = arguments.get(1).is_some_and(|name| name == "serve");
    let Some(serve) = program.find_subcommand("serve").filter(|_| is_serve) else {
        return Ok(arguments);
    };
    let mut more = match config_file(&arguments) {
        Some(path) => from_file(&path, serve)?,
        None => Vec::new(),
    };
    for option in serve.get_arguments().filter_map(clap::Arg::get_long) {
        let name = format!("{PREFIX}{}", option.to_uppercase().replace('-', "_"));
        let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
        if !takes_value(serve, option) {
            more.extend(is_on(&value).then(|| flag(option)));
        } else {
            more.extend([flag(option), value]);
        }
    }
    arguments.splice(2..2, more);
    Ok(arguments)
}

/// The file that `--config` names.
fn config_file(arguments: &[OsString]) -> Option<PathBuf> {
    for (at, argument) in arguments.iter().enumerate() {
        if argument == "--config" {
            return arguments.get(at + 1).map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    None
}

fn from_file(path: &Path, serve: &Command) -> Result<Vec<OsString>> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    let fault = |reason: String| Error::Input(format!("{}: {reason}", path.display()));
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| fault(error.message().to_owned()))?;
    let mut options = Vec::new();
    for (key, value) in table {
        let option = key.replace('_', "-");
        let known = serve.get_arguments().any(|argument| argument.get_long() == Some(&option));
        if !known || option == "config" {
            return Err(fault(format!("{key:?} is no option of serve")));
        }
        let values = match value {
            toml::Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            match value {
                toml::Value::Boolean(on) if !takes_value(serve, &option) => {
                    options.extend(on.then(|| flag(&option)));
                }
                toml::Value::String(text) => options.extend([flag(&option), text.into()]),
                toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                    options.extend([flag(&option), value.to_string().into()]);
                }
                _ => return Err(fault(format!("{key:?} is neither a text nor a number"))),
            }
        }
    }
    Ok(options)
}

fn flag(option: &str) -> OsString {
    format!("--{option}").into()
}

fn takes_value(serve: &Command, option: &str) -> bool {
    let argument = serve.get_arguments().find(|argument| argument.get_long() == Some(option));
    argument
        .is_some_and(|argument| matches!(argument.get_action(), ArgAction::Set | ArgAction::Append))
}

fn is_on(value: &OsStr) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn program() -> Command {
        let alias = Arg::new("alias").long("alias").action(ArgAction::Append);
        let keep = Arg::new("keep").long("keep-line").action(ArgAction::SetTrue);
        let options = [Arg::new("port").long("port"), Arg::new("config").long("config")];
        Command::new("p").subcommand(Command::new("serve").args(options).arg(alias).arg(keep))
    }

    fn expanded(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Vec<String>> {
        let arguments = ["p"].iter().chain(arguments).map(OsString::from);
        let variable = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let expanded = expand(arguments, &program(), variable)?;
        Ok(expanded.into_iter().map(|argument| argument.into_string().unwrap()).collect())
    }

    #[test]
    fn files_come_first_then_variables_then_flags() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "port = 1\nalias = [\"a\", \"b\"]\nkeep_line = true\n")
            .unwrap();
        let config = format!("--config={}", file.path().display());
        let variables = [("GEMMA4_WGPU_PORT", "2"), ("GEMMA4_WGPU_KEEP_LINE", "0")];
        let all = expanded(&["serve", &config, "--port", "3"], &variables).unwrap();
        let of_file = ["--port", "1", "--alias", "a", "--alias", "b", "--keep-line"];
        let mut sorted = [all[2..9].to_vec(), of_file.map(String::from).to_vec()];
        sorted.iter_mut().for_each(|options| options.sort());
        assert_eq!(sorted[0], sorted[1]);
        assert_eq!(all[9..], ["--port", "2", &config, "--port", "3"]);
        std::fs::write(file.path(), "ports = 1").unwrap();
        let error = expanded(&["serve", &config], &[]).unwrap_err().to_string();
        assert!(error.contains("\"ports\" is no option"), "{error}");
        assert_eq!(expanded(&["run"], &variables).unwrap(), ["p", "run"]);
    }
}
