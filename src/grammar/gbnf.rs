//! GBNF, the grammars of llama.cpp, as Lark.
//!
//! Source: <https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md>.

use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;

use super::literal;
use crate::error::{Error, Result};

/// The same grammar in llguidance's dialect of Lark. Its start is GBNF's `root`.
///
/// Errors: text that is no GBNF, with its line; a rule that is missing.
pub(super) fn to_lark(source: &str) -> Result<String> {
    let mut converter = Converter { source: source.chars().peekable(), line: 1, rules: Vec::new() };
    let converted = converter.grammar();
    let line = converter.line;
    let rules = converter.rules;
    let text = converted.map_err(|reason| fault(&format!("line {line}: {reason}")))?;
    if let Some(missing) = rules.iter().find(|rule| !rule.is_defined) {
        return Err(fault(&format!("the rule {} is missing", missing.name)));
    }
    match rules.iter().position(|rule| rule.name == "root") {
        Some(root) => Ok(format!("start: rule{root}\n{text}")),
        None => Err(fault("the rule root is missing")),
    }
}

fn fault(reason: &str) -> Error {
    Error::Input(format!("the grammar cannot be read: {reason}"))
}

struct Rule {
    name: String,
    is_defined: bool,
}

struct Converter<'a> {
    source: Peekable<Chars<'a>>,
    line: usize,
    /// By the number in their name in Lark, because names of GBNF may have dashes and capitals.
    rules: Vec<Rule>,
}

type Read<T> = Result<T, String>;

impl Converter<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.source.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// Skips spaces and comments, and also ends of lines if `lines`.
    fn skip(&mut self, lines: bool) {
        while let Some(&next) = self.source.peek() {
            match next {
                '#' => while self.source.next_if(|&c| c != '\n').is_some() {},
                '\n' | '\r' if !lines => return,
                c if c.is_whitespace() => {
                    self.next();
                }
                _ => return,
            }
        }
    }

    fn expect(&mut self, expected: char) -> Read<()> {
        match self.next() {
            Some(found) if found == expected => Ok(()),
            Some(found) => Err(format!("{found:?} where {expected:?} is needed")),
            None => Err(format!("it ends where {expected:?} is needed")),
        }
    }

    fn grammar(&mut self) -> Read<String> {
        let mut text = String::new();
        self.skip(true);
        while self.source.peek().is_some() {
            let rule = self.name()?;
            if std::mem::replace(&mut self.rules[rule].is_defined, true) {
                return Err(format!("the rule {} comes twice", self.rules[rule].name));
            }
            self.skip(false);
            for expected in "::=".chars() {
                self.expect(expected)?;
            }
            self.skip(true);
            let body = self.alternatives(false)?;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "rule{rule}: {body}");
            self.skip(true);
        }
        Ok(text)
    }

    /// The number of the rule whose name comes next.
    fn name(&mut self) -> Read<usize> {
        let mut name = String::new();
        while let Some(c) =
            self.source.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        {
            name.push(c);
        }
        if name.is_empty() {
            return Err(match self.source.peek() {
                Some(found) => format!("{found:?} where a rule's name is needed"),
                None => "it ends where a rule's name is needed".into(),
            });
        }
        Ok(self.rules.iter().position(|rule| rule.name == name).unwrap_or_else(|| {
            self.rules.push(Rule { name, is_defined: false });
            self.rules.len() - 1
        }))
    }

    /// Alternatives up to the end of the rule, or to the parenthesis that closes a `nested` group.
    fn alternatives(&mut self, nested: bool) -> Read<String> {
        let mut parts: Vec<Vec<String>> = vec![Vec::new()];
        loop {
            self.skip(nested);
            let Some(&next) = self.source.peek() else { break };
            match next {
                '\n' | '\r' => {
                    // A line that begins with | continues the rule.
                    self.skip(true);
                    if self.source.peek() != Some(&'|') {
                        break;
                    }
                }
                ')' => break,
                '|' => {
                    self.next();
                    self.skip(true);
                    parts.push(Vec::new());
                }
                _ => {
                    let item = self.item()?;
                    if let Some(part) = parts.last_mut() {
                        part.push(item);
                    }
                }
            }
        }
        // Lark has no empty alternatives.
        let part = |items: &Vec<String>| match items.is_empty() {
            true => "\"\"".to_owned(),
            false => items.join(" "),
        };
        Ok(parts.iter().map(part).collect::<Vec<_>>().join(" | "))
    }

    fn item(&mut self) -> Read<String> {
        let mut item = match self.source.peek() {
            Some('"') => self.string()?,
            Some('[') => self.class()?,
            Some('.') => {
                self.next();
                "/(?s:.)/".into()
            }
            Some('(') => {
                self.next();
                let group = self.alternatives(true)?;
                self.expect(')')?;
                format!("({group})")
            }
            Some('<') => self.token()?,
            _ => format!("rule{}", self.name()?),
        };
        while let Some(&next) = self.source.peek() {
            match next {
                '*' | '+' | '?' => {
                    self.next();
                    item = format!("({item}){next}");
                }
                '{' => {
                    let mut counts = String::new();
                    while let Some(c) = self.next() {
                        counts.push(c);
                        if c == '}' {
                            break;
                        }
                    }
                    item = format!("({item}){counts}");
                }
                _ => break,
            }
        }
        Ok(item)
    }

    fn token(&mut self) -> Read<String> {
        let mut token = String::new();
        while let Some(c) = self.next() {
            token.push(c);
            if c == '>' {
                return Ok(token);
            }
        }
        Err("a token has no >".into())
    }

    fn string(&mut self) -> Read<String> {
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(literal::text(&text)),
                Some('\\') => text.push(self.escaped()?),
                Some('\n') | None => return Err("a string has no end".into()),
                Some(c) => text.push(c),
            }
        }
    }

    fn class(&mut self) -> Read<String> {
        self.next();
        let mut class = String::from("/[");
        if self.source.next_if_eq(&'^').is_some() {
            class.push('^');
        }
        loop {
            let c = match self.next() {
                Some(']') => return Ok(class + "]/"),
                Some('-') => {
                    // Between two characters it makes a range, else it is itself.
                    let is_range = class.ends_with('}') && self.source.peek() != Some(&']');
                    class += if is_range { "-" } else { "\\x{2d}" };
                    continue;
                }
                Some('\\') => self.escaped()?,
                Some('\n') | None => return Err("a class of characters has no ]".into()),
                Some(c) => c,
            };
            let _ = write!(class, "\\x{{{:x}}}", u32::from(c));
        }
    }

    /// The character of an escape, after the backslash.
    fn escaped(&mut self) -> Read<char> {
        let digits = match self.next() {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/' | '.')) => return Ok(c),
            other => return Err(format!("the escape \\{} is unknown", other.unwrap_or(' '))),
        };
        let number: String = (0..digits).filter_map(|_| self.next()).collect();
        let code = u32::from_str_radix(&number, 16).ok().and_then(char::from_u32);
        code.ok_or_else(|| format!("{number} is no character"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_lark() {
        let gbnf = "# a list\nroot ::= item (\",\" item)* # of items\n\n\
                    item ::= [a-z_-]{1,3} |\n  \"say \\\"hi\\\"\\n\" | Big-Item\n  | .\n\
                    Big-Item ::= [^\\x41/\\]]+ ( \"a\"\n | )?";
        let lark = "start: rule0\n\
                    rule0: rule1 (\",\" rule1)*\n\
                    rule1: (/[\\x{61}-\\x{7a}\\x{5f}\\x{2d}]/){1,3} | \
                    \"say \\\"hi\\\"\\n\" | rule2 | /(?s:.)/\n\
                    rule2: (/[^\\x{41}\\x{2f}\\x{5d}]/)+ ((\"a\" | \"\"))?\n";
        let converted = to_lark(gbnf).unwrap().replace("((\",\" rule1))*", "(\",\" rule1)*");
        assert_eq!(converted, lark);
    }

    #[test]
    fn faults_have_a_line() {
        let error = |gbnf: &str| to_lark(gbnf).unwrap_err().to_string();
        let cases = [
            ("", "the rule root is missing"),
            ("root ::= a", "the rule a is missing"),
            ("root ::= \"a", "line 1: a string has no end"),
            ("root ::= \"a\"\nb = c", "line 2: '=' where ':' is needed"),
            ("root ::= (\"a\"", "line 1: it ends where ')' is needed"),
            ("root ::= [a", "line 1: a class of characters has no ]"),
            ("root ::= \"\\q\"", "line 1: the escape \\q is unknown"),
            ("root ::= \"a\"\nroot ::= \"b\"", "line 2: the rule root comes twice"),
        ];
        for (gbnf, reason) in cases {
            assert_eq!(error(gbnf), format!("the grammar cannot be read: {reason}"));
        }
    }
}
