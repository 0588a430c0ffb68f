//! Splits a template's source into tags and the rest, and tags into tokens, like Jinja2's lexer.

/// A part of a template's source. All parts together give the source.
pub(super) enum Piece<'s> {
    /// Text, comments and raw blocks.
    Verbatim(&'s str),
    Tag(Tag<'s>),
}

/// `{{ … }}` or `{% … %}`.
pub(super) struct Tag<'s> {
    /// `{{` or `{%`, with a whitespace control sign.
    pub open: &'s str,
    pub tokens: Vec<Token<'s>>,
    pub end_space: &'s str,
    /// The deepest nesting of brackets.
    pub depth: usize,
    /// Empty where the source ends inside the tag.
    pub close: &'s str,
}

impl Tag<'_> {
    pub fn is_block(&self) -> bool {
        self.open.starts_with("{%")
    }

    /// Whether this is `{% elif … %}`.
    pub fn is_branch(&self) -> bool {
        self.is_block() && self.tokens.first().is_some_and(|token| token.text == "elif")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Number,
    String,
    Operator,
}

/// A token and the whitespace in front of it.
pub(super) struct Token<'s> {
    pub space: &'s str,
    pub text: &'s str,
    pub kind: Kind,
}

pub(super) fn pieces(source: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut verbatim_from, mut at) = (0, 0);
    while let Some(offset) = source[at..].find(['{']) {
        let start = at + offset;
        let rest = &source[start..];
        if rest.starts_with("{#") {
            at = start + rest.find("#}").map_or(rest.len(), |end| end + 2);
        } else if let Some(length) = raw_block(rest) {
            at = start + length;
        } else if rest.starts_with("{{") || rest.starts_with("{%") {
            pieces.push(Piece::Verbatim(&source[verbatim_from..start]));
            let (tag, length) = tag(rest);
            pieces.push(Piece::Tag(tag));
            at = start + length;
            verbatim_from = at;
        } else {
            at = start + 1;
        }
    }
    pieces.push(Piece::Verbatim(&source[verbatim_from..]));
    pieces
}

/// Length of a `{% raw %}` block at the beginning, without its end tag. No tag is read before that.
fn raw_block(text: &str) -> Option<usize> {
    let body = word_tag(text, "raw")?;
    let ends = text[body..].match_indices("{%").map(|(at, _)| body + at);
    let end =
        ends.into_iter().find_map(|at| word_tag(&text[at..], "endraw").map(|length| at + length));
    Some(end.unwrap_or(text.len()))
}

/// Length of `{% word %}` at the beginning.
fn word_tag(text: &str, word: &str) -> Option<usize> {
    let rest = text.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start();
    let rest = rest.strip_prefix(word)?.trim_start();
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).strip_prefix("%}")?;
    Some(text.len() - rest.len())
}

/// The tag at the beginning, and its length.
fn tag(text: &str) -> (Tag<'_>, usize) {
    let closing = if text.starts_with("{{") { "}}" } else { "%}" };
    let mut at = 2 + usize::from(text[2..].starts_with(['-', '+']));
    let open = &text[..at];
    let mut tokens = Vec::new();
    let (mut depth, mut deepest) = (0usize, 0);
    loop {
        let from = at;
        at += text[at..].len() - text[at..].trim_start().len();
        let (space, rest) = (&text[from..at], &text[at..]);
        let end = end_length(rest, closing).filter(|_| depth == 0);
        if end.is_some() || rest.is_empty() {
            let close = &rest[..end.unwrap_or(0)];
            return (
                Tag { open, tokens, end_space: space, depth: deepest, close },
                at + close.len(),
            );
        }
        let (kind, length) = token(rest);
        match &rest[..length] {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
        tokens.push(Token { space, text: &rest[..length], kind });
        at += length;
    }
}

fn end_length(rest: &str, closing: &str) -> Option<usize> {
    let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    unsigned.starts_with(closing).then(|| rest.len() - unsigned.len() + closing.len())
}

/// Kind and length of the token at the beginning of text that is not empty.
fn token(text: &str) -> (Kind, usize) {
    let first = text.chars().next().unwrap_or_default();
    match first {
        '"' | '\'' => (Kind::String, string_length(text, first)),
        '0'..='9' => (Kind::Number, number_length(text)),
        _ if first == '_' || first.is_alphanumeric() => (Kind::Name, name_length(text)),
        _ => {
            let long =
                ["**", "//", "==", "!=", "<=", ">="].iter().find(|long| text.starts_with(**long));
            (Kind::Operator, long.map_or(first.len_utf8(), |long| long.len()))
        }
    }
}

/// Length of a quoted string with its quotes. A string without an end takes the rest.
fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Digits. A fraction needs digits after the dot, because `messages.0.content` has none.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let is_word =
        |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let mut at = 0;
    loop {
        let exponent = at > 0 && matches!(bytes[at - 1], b'e' | b'E') && !text.starts_with("0x");
        let sign = exponent && matches!(bytes.get(at), Some(b'+' | b'-'));
        let dot = bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !is_word(at) && !sign && !dot {
            return at;
        }
        at += 1;
    }
}

fn name_length(text: &str) -> usize {
    text.find(|character: char| character != '_' && !character.is_alphanumeric())
        .unwrap_or(text.len())
}
