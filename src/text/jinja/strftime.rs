//! `strftime_now`: the local date and time in the format of C's strftime.

use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use minijinja::{Error, ErrorKind};

/// Supported directives of the C library, besides `%f`, `%z` and `%Z`.
const DIRECTIVES: &str = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyY%";

/// Errors: a directive that C does not know.
pub(super) fn strftime_now(format: &str) -> Result<String, Error> {
    let now = web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::from_nanosecond(now.as_nanos() as i128).unwrap_or_default();
    // A browser does not give its time zone here.
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    strftime(format, &now.to_zoned(zone))
}

/// Python's `datetime.strftime` of a time without a zone: `%z` and `%Z` write nothing.
fn strftime(format: &str, time: &Zoned) -> Result<String, Error> {
    let mut text = String::new();
    let mut rest = format;
    while let Some((before, directive)) = rest.split_once('%') {
        text.push_str(before);
        let flags = directive.len() - directive.trim_start_matches(['-', '_', '0', '^', '#']).len();
        let (flags, directive) = directive.split_at(flags);
        let digits =
            directive.len() - directive.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (width, directive) = directive.split_at(digits);
        // Locale modifiers change nothing in the C locale.
        let directive = directive.strip_prefix(['E', 'O']).unwrap_or(directive);
        let letter = directive.chars().next();
        match letter {
            Some('f') => text.push_str(&format!("{:06}", time.subsec_nanosecond() / 1000)),
            Some('z' | 'Z') => {}
            Some(letter) if DIRECTIVES.contains(letter) => {
                let field = field(flags, width, letter, time).ok_or_else(|| unknown(letter))?;
                text.push_str(&field);
            }
            _ => return Err(unknown(letter.unwrap_or('%'))),
        }
        rest = &directive[letter.map_or(0, char::len_utf8)..];
    }
    text.push_str(rest);
    Ok(text)
}

fn unknown(letter: char) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("strftime_now cannot write %{letter}"))
}

/// One directive. Widths and flags of texts and composed directives follow the C library.
fn field(flags: &str, width: &str, letter: char, time: &Zoned) -> Option<String> {
    let last = |of: &[char]| flags.chars().rev().find(|flag| of.contains(flag));
    let padding = last(&['-', '_', '0']);
    let is_number = "CdegGHIjklmMsSuUVwWyY".contains(letter);
    let mut text = format_with(&format!("%{letter}"), time)?;
    if flags.contains('^') {
        text = text.to_uppercase();
    }
    if flags.contains('#') {
        text = if letter == 'p' { text.to_lowercase() } else { text.to_uppercase() };
    }
    if padding == Some('-') && width.is_empty() {
        let digits = text.trim_start_matches(['0', ' ']);
        return Some(if !is_number {
            text
        } else if digits.is_empty() {
            "0".into()
        } else {
            digits.into()
        });
    }
    let fill = match padding {
        Some('0') => '0',
        Some('_' | '-') => ' ',
        _ if is_number && !"ekl".contains(letter) => '0',
        _ => ' ',
    };
    let mut least = text.chars().count();
    if is_number {
        let digits = text.trim_start_matches(['0', ' ']);
        text = if digits.is_empty() { "0".into() } else { digits.to_owned() };
    }
    if !width.is_empty() {
        least = width.parse().ok().filter(|width| *width <= 1024)?;
    }
    let missing = least.saturating_sub(text.chars().count());
    Some(std::iter::repeat_n(fill, missing).collect::<String>() + &text)
}

fn format_with(format: &str, time: &Zoned) -> Option<String> {
    let mut text = String::new();
    let config = Config::new().custom(PosixCustom::new());
    BrokenDownTime::from(time).format_with_config(&config, format, &mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;
    use serde::Deserialize;

    use super::*;

    /// The output of transformers: tests/fixtures/text/templates/generate.py.
    #[derive(Deserialize)]
    struct Reference {
        formats: Vec<String>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        instant: [i16; 6],
        expected: Vec<String>,
    }

    #[test]
    fn strftime_writes_like_python() {
        let text = include_str!("../../../tests/fixtures/text/templates/strftime.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        let mut wrong = Vec::new();
        for case in &reference.cases {
            let [year, rest @ ..] = case.instant;
            let [month, day, hour, minute, second] = rest.map(|part| part as i8);
            let time = date(year, month, day).at(hour, minute, second, 0);
            let time = time.to_zoned(TimeZone::UTC).unwrap();
            assert_eq!(reference.formats.len(), case.expected.len());
            for (format, expected) in reference.formats.iter().zip(&case.expected) {
                let written = strftime(format, &time).unwrap();
                if written != *expected {
                    wrong.push(format!("{format} of {time}: {written:?}, not {expected:?}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn unknown_directives_are_named() {
        let time = date(2026, 1, 4).at(1, 2, 3, 456_789_000).to_zoned(TimeZone::UTC).unwrap();
        for directive in ["%Q", "%N", "%:", "%.", "%é"] {
            let message = strftime(&format!("a {directive}z b"), &time).unwrap_err().to_string();
            assert!(message.contains(directive), "{message}");
        }
        assert!(strftime("50%", &time).is_err());
        assert_eq!(strftime("%s %f", &time).unwrap(), "1767488523 456789");
    }
}
