//! Arguments of filters and methods, by position or by name.

use minijinja::value::{Kwargs, Rest, from_args};
use minijinja::{Error, ErrorKind, Value};

/// The arguments of `function` in the order of `names`. Errors: too many, repeated or unknown
/// arguments.
pub(super) fn arguments<const N: usize>(
    function: &str,
    names: [&str; N],
    given: &[Value],
) -> Result<[Option<Value>; N], Error> {
    let (positional, keywords): (Rest<Value>, Kwargs) = from_args(given)?;
    both(function, names, &positional, &keywords)
}

/// The same for arguments that are already separated.
pub(super) fn both<const N: usize>(
    function: &str,
    names: [&str; N],
    positional: &[Value],
    keywords: &Kwargs,
) -> Result<[Option<Value>; N], Error> {
    let failed =
        |reason: String| Error::new(ErrorKind::InvalidOperation, format!("{function} {reason}"));
    if positional.len() > N {
        return Err(failed(format!("takes {N} arguments, not {}", positional.len())));
    }
    let mut values = [const { None }; N];
    for (value, given) in values.iter_mut().zip(positional) {
        *value = Some(given.clone());
    }
    for name in keywords.args() {
        match names.iter().position(|known| *known == name) {
            Some(index) if values[index].is_none() => values[index] = Some(keywords.get(name)?),
            Some(_) => return Err(failed(format!("has the argument '{name}' twice"))),
            None => return Err(failed(format!("knows no argument '{name}'"))),
        }
    }
    Ok(values)
}
