//! The Jinja dialect of chat templates in minijinja, as in transformers' `apply_chat_template`.

mod arguments;
mod filters;
mod functions;
mod lexer;
mod methods;
mod operators;
mod repr;
mod source;
mod strftime;
mod strings;
mod tojson;

use minijinja::{Environment, Error, ErrorKind, syntax::SyntaxConfig};

pub(super) use source::rewrite;

/// Most instructions of one rendering. It suffices for some thousand messages, and stops an endless
/// loop.
const FUEL: u64 = 20_000_000;

/// An environment with the settings and functions for chat templates. Its templates must be sources
/// from [`rewrite`].
pub(super) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, _, value| match value.as_str() {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => out.write_str(&repr::to_str(value)?).map_err(Error::from),
    });
    functions::add_to(&mut environment);
    filters::add_to(&mut environment);
    Ok(environment)
}

/// An error as one line: the template's own message, or the fault and its line in the template.
pub(super) fn describe(error: &Error) -> String {
    let text = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "the template does not come to an end".to_owned(),
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match error.line() {
        Some(line) => format!("{text} (template line {line})"),
        None => text,
    }
}
