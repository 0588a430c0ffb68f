//! Rewrites a template for minijinja's parser. `{% generation %}` is replaced. Filters replace `%`
//! on strings and `~` on floats, because minijinja has no custom operators.

use minijinja::{Error, ErrorKind};

use crate::text::jinja::lexer::{Kind, Piece, Tag, Token, pieces};

/// Names of the filters that replace operators. A template cannot assign to a filter.
pub(super) const REMAINDER: &str = "__remainder__";
pub(super) const CONCATENATE: &str = "__concatenate__";

/// Words that precede an operand, although they look like names.
const KEYWORDS: [&str; 6] = ["not", "in", "and", "or", "if", "else"];

/// Most nested brackets, operators `%` in one product, and signs of one operand.
const MAX_DEPTH: usize = 64;

/// Most tokens of one tag, and most `elif` of a template. minijinja parses and compiles such
/// sequences by recursion, and a browser's stack has 1 MiB.
const MAX_TOKENS: usize = 2000;
const MAX_BRANCHES: usize = 500;

/// The template with the same lines. Errors: `{% generation %}` without an end, or an end without
/// it.
pub(in crate::text) fn rewrite(source: &str) -> Result<String, Error> {
    let mut text = String::with_capacity(source.len() + source.len() / 8);
    let mut blocks = Vec::new();
    let (mut line, mut counted, mut branches) = (1, 0, 0);
    for piece in pieces(source) {
        match piece {
            Piece::Verbatim(piece) => text.push_str(piece),
            Piece::Tag(tag) => {
                line += text[counted..].matches('\n').count();
                counted = text.len();
                if tag.depth > MAX_DEPTH {
                    return Err(syntax_error("brackets are nested too deeply", line));
                }
                if tag.tokens.len() > MAX_TOKENS {
                    return Err(syntax_error("an expression is too long", line));
                }
                branches += usize::from(tag.is_branch());
                if branches > MAX_BRANCHES {
                    return Err(syntax_error("there are too many elif", line));
                }
                let word = track(&tag, &mut blocks);
                let word = word.map_err(|reason| syntax_error(reason, line))?;
                text.push_str(tag.open);
                match word {
                    Some(word) => text.push_str(&format!("{}{word}", tag.tokens[0].space)),
                    None => text.push_str(&Rewriter::new(&tag).run()),
                }
                text.push_str(tag.end_space);
                text.push_str(tag.close);
            }
        }
    }
    match blocks.contains(&"generation") {
        true => Err(syntax_error("{% generation %} is not closed", line)),
        false => Ok(text),
    }
}

fn syntax_error(reason: &str, line: usize) -> Error {
    Error::new(ErrorKind::SyntaxError, format!("{reason} (template line {line})"))
}

/// The replacement of a tag of one word. transformers renders the body of `{% generation %}` as a
/// macro. Names that it sets end with it, and it cannot leave a loop around it.
fn track(tag: &Tag, blocks: &mut Vec<&'static str>) -> Result<Option<&'static str>, &'static str> {
    if blocks.contains(&"macro") {
        refuse_rest_arguments(tag)?;
    }
    let Some(first) = tag.tokens.first().filter(|_| tag.is_block()) else { return Ok(None) };
    match first.text {
        "generation" if tag.tokens.len() > 1 => return Err("{% generation %} takes no arguments"),
        "generation" => {
            blocks.push("generation");
            return Ok(Some("with"));
        }
        "endgeneration" => {
            return match blocks.pop() {
                Some("generation") if tag.tokens.len() == 1 => Ok(Some("endwith")),
                _ => Err("unexpected {% endgeneration %}"),
            };
        }
        "for" => blocks.push("for"),
        "macro" => blocks.push("macro"),
        "endmacro" => blocks.retain(|&block| block != "macro"),
        "with" => blocks.push("with"),
        "endfor" | "endwith" if blocks.pop() == Some("generation") => {
            return Err("{% generation %} is not closed");
        }
        "break" | "continue" => {
            let around =
                blocks.iter().rev().find(|&&block| block == "for" || block == "generation");
            if around == Some(&"generation") {
                return Err("{% generation %} cannot be left by break or continue");
            }
        }
        _ => {}
    }
    Ok(None)
}

/// minijinja's macros have no `varargs` and `kwargs`, and print nothing for them.
fn refuse_rest_arguments(tag: &Tag) -> Result<(), &'static str> {
    let mut before = "";
    for token in &tag.tokens {
        match token.text {
            "varargs" if before != "." => return Err("varargs of a macro is not supported"),
            "kwargs" if before != "." => return Err("kwargs of a macro is not supported"),
            text => before = text,
        }
    }
    Ok(())
}

/// Parses one tag's expressions as far as the operands of `%` and `~` require. Jinja's precedence
/// is `+ -`, `~`, `* / // %`, `**`, then signs. Attributes, items and calls bind most tightly.
struct Rewriter<'t, 's> {
    tokens: &'t [Token<'s>],
    next: usize,
}

impl<'t, 's> Rewriter<'t, 's> {
    fn new(tag: &'t Tag<'s>) -> Self {
        Rewriter { tokens: &tag.tokens, next: usize::from(tag.is_block()) }
    }

    /// The whole tag. Its first word, the statement's name, is no operand.
    fn run(mut self) -> String {
        let mut text = String::new();
        for token in &self.tokens[..self.next.min(self.tokens.len())] {
            push(&mut text, token);
        }
        self.next = self.next.min(self.tokens.len());
        while self.next < self.tokens.len() {
            text.push_str(&self.expressions());
            self.copy(&mut text); // a bracket that closes nothing
        }
        text
    }

    fn peek(&self) -> &'s str {
        self.tokens
            .get(self.next)
            .map_or("", |token| if token.kind == Kind::String { "" } else { token.text })
    }

    fn kind(&self) -> Option<Kind> {
        self.tokens.get(self.next).map(|token| token.kind)
    }

    fn copy(&mut self, text: &mut String) {
        if let Some(token) = self.tokens.get(self.next) {
            push(text, token);
            self.next += 1;
        }
    }

    /// Operands and the operators between them, up to a closing bracket.
    fn expressions(&mut self) -> String {
        let mut text = String::new();
        let mut after_operand = false;
        while self.next < self.tokens.len() && !matches!(self.peek(), ")" | "]" | "}") {
            let sign = matches!(self.peek(), "+" | "-");
            if self.at_operand() || (sign && !after_operand) {
                text.push_str(&self.concatenation());
                after_operand = true;
            } else {
                self.copy(&mut text);
                after_operand = false;
            }
        }
        text
    }

    fn at_operand(&self) -> bool {
        match self.kind() {
            Some(Kind::Name) => !KEYWORDS.contains(&self.peek()),
            Some(Kind::Number | Kind::String) => true,
            _ => matches!(self.peek(), "(" | "[" | "{"),
        }
    }

    fn concatenation(&mut self) -> String {
        let first = self.product();
        let mut others = Vec::new();
        while self.peek() == "~" {
            let mut before = String::new();
            self.copy(&mut before);
            let before = before.replace('~', "");
            others.push(before + &self.product());
        }
        match others.is_empty() {
            true => first,
            false => format!(" (({first})|{CONCATENATE}({}))", others.join(",")),
        }
    }

    fn product(&mut self) -> String {
        let mut left = self.power();
        let mut nested = 0;
        loop {
            match self.peek() {
                "%" if nested < MAX_DEPTH => {
                    nested += 1;
                    let mut before = String::new();
                    self.copy(&mut before);
                    let right = before.replace('%', "") + &self.power();
                    left = format!(" (({left})|{REMAINDER}({right}))");
                }
                "*" | "/" | "//" | "%" => {
                    self.copy(&mut left);
                    left.push_str(&self.power());
                }
                _ => return left,
            }
        }
    }

    fn power(&mut self) -> String {
        let mut text = self.signed();
        while self.peek() == "**" {
            self.copy(&mut text);
            text.push_str(&self.signed());
        }
        text
    }

    fn signed(&mut self) -> String {
        let mut text = String::new();
        let mut signs = 0;
        while matches!(self.peek(), "+" | "-") {
            // minijinja parses signs by unlimited recursion.
            let mut unread = String::new();
            self.copy(if signs < MAX_DEPTH { &mut text } else { &mut unread });
            signs += 1;
        }
        if signs > MAX_DEPTH {
            text.push_str(" 'too many signs'");
        }
        self.operand(&mut text);
        loop {
            match self.peek() {
                "|" => {
                    self.copy(&mut text);
                    self.dotted_name(&mut text);
                    self.calls(&mut text);
                }
                "is" => self.test(&mut text),
                _ => return text,
            }
        }
    }

    /// A name, literal or bracket with its attributes, items and calls.
    fn operand(&mut self, text: &mut String) {
        if !self.at_operand() {
            return;
        }
        match self.kind() {
            Some(Kind::String) => {
                while self.kind() == Some(Kind::String) {
                    self.copy(text);
                }
            }
            Some(Kind::Operator) => self.bracket(text),
            _ => self.copy(text),
        }
        self.calls(text);
    }

    fn calls(&mut self, text: &mut String) {
        loop {
            match self.peek() {
                "." => {
                    self.copy(text);
                    self.copy(text);
                }
                "(" | "[" => self.bracket(text),
                _ => return,
            }
        }
    }

    fn bracket(&mut self, text: &mut String) {
        self.copy(text);
        text.push_str(&self.expressions());
        self.copy(text);
    }

    fn dotted_name(&mut self, text: &mut String) {
        self.copy(text);
        while self.peek() == "." {
            self.copy(text);
            self.copy(text);
        }
    }

    /// `is NAME`, `is not NAME(…)` or `is NAME OPERAND`. A test binds as tightly as a filter.
    fn test(&mut self, text: &mut String) {
        self.copy(text);
        if self.peek() == "not" {
            self.copy(text);
        }
        self.dotted_name(text);
        match self.peek() {
            "(" => self.bracket(text),
            "is" => {}
            _ => self.operand(text),
        }
    }
}

fn push(text: &mut String, token: &Token) {
    text.push_str(token.space);
    match token.kind == Kind::String && token.text.contains("\\\n") {
        true => push_joined(text, token.text),
        false => text.push_str(token.text),
    }
}

/// A string with backslashes at line ends, which minijinja does not support. The line breaks move
/// after it, so that later lines keep their numbers.
fn push_joined(text: &mut String, string: &str) {
    let mut characters = string.chars();
    let mut breaks = String::new();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('\n') => breaks.push('\n'),
                Some(escaped) => text.extend(['\\', escaped]),
                None => text.push('\\'),
            },
            _ => text.push(character),
        }
    }
    text.push_str(&breaks);
}
