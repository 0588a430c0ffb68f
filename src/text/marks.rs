//! Ensures that only the template writes control tokens. Their spellings in messages pass through a
//! template as plain text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use crate::error::{Error, Result};

/// A rendered prompt that distinguishes messages from the template's own text.
///
/// A character of a message that could become part of a control token is replaced by a stand-in.
/// This happens before rendering. After control tokens are matched, the original is restored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RenderedPrompt {
    masked: String,
    stand_ins: StandIns,
}

impl RenderedPrompt {
    pub(super) fn new(masked: String, stand_ins: StandIns) -> Self {
        RenderedPrompt { masked, stand_ins }
    }

    /// The prompt as text.
    pub fn text(&self) -> Cow<'_, str> {
        self.stand_ins.restore(&self.masked)
    }

    /// The parts of the prompt in order: control tokens, and the text between them.
    pub(super) fn parts<'a>(&'a self, marks: &ControlMarks) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let mut end = 0;
        for found in marks.exact.find_iter(&self.masked) {
            let before = &self.masked[end..found.start()];
            parts.push(Part::Text(self.stand_ins.restore(before)));
            parts.push(Part::Control(&self.masked[found.range()]));
            end = found.end();
        }
        parts.push(Part::Text(self.stand_ins.restore(&self.masked[end..])));
        parts
    }

    /// Whether messages contain characters that could become part of a control token.
    pub(super) fn has_stand_ins(&self) -> bool {
        !self.stand_ins.originals.is_empty()
    }
}

/// A part of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// The spelling of a control token, written by the template.
    Control(&'a str),
    Text(Cow<'a, str>),
}

/// The original characters of the stand-ins that a template sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct StandIns {
    originals: HashMap<char, char>,
}

impl StandIns {
    fn restore<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !text.contains(|c| self.originals.contains_key(&c)) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.chars().map(|c| self.originals.get(&c).copied().unwrap_or(c)).collect())
    }
}

/// The spellings of a vocabulary's control tokens.
pub(super) struct ControlMarks {
    /// Finds spellings in a prompt.
    exact: AhoCorasick,
    /// Finds spellings in a message in any case, because templates can change case.
    any_case: AhoCorasick,
    /// In lower case.
    spellings: Vec<String>,
    /// Proper prefixes and suffixes of spellings, in lower case.
    beginnings: HashSet<String>,
    ends: HashSet<String>,
    /// Characters of the longest spelling.
    longest: usize,
}

impl ControlMarks {
    /// Errors: too many spellings for an automaton.
    pub(super) fn new(spellings: &[String]) -> Result<Self> {
        let automaton = |ignore_case| {
            AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .ascii_case_insensitive(ignore_case)
                .build(spellings)
                .map_err(|error| Error::Tokenizer(format!("control tokens: {error}")))
        };
        let lower: Vec<String> = spellings.iter().map(|text| text.to_ascii_lowercase()).collect();
        let (mut beginnings, mut ends) = (HashSet::new(), HashSet::new());
        for spelling in &lower {
            for (at, _) in spelling.char_indices().skip(1) {
                beginnings.insert(spelling[..at].to_owned());
                ends.insert(spelling[at..].to_owned());
            }
        }
        Ok(ControlMarks {
            exact: automaton(false)?,
            any_case: automaton(true)?,
            longest: lower.iter().map(|spelling| spelling.chars().count()).max().unwrap_or(0),
            spellings: lower,
            beginnings,
            ends,
        })
    }

    /// Offsets of characters whose replacement removes all control tokens from `text`. It then
    /// cannot begin or end one beside other text either.
    fn exposed(&self, text: &str) -> Vec<usize> {
        let mut offsets = Vec::new();
        let mut from = 0;
        while let Some(found) = self.any_case.find(Input::new(text).range(from..)) {
            offsets.push(found.start() + safest(&text[found.range()]));
            let first = text[found.start()..].chars().next();
            from = found.start() + first.map_or(1, char::len_utf8);
        }
        let lower = text.to_ascii_lowercase();
        // Templates often trim, so that both ends are checked with and without spaces.
        let start = text.len() - text.trim_start().len();
        let trimmed = start..start + text.trim().len();
        for range in [0..text.len(), trimmed] {
            let at_ends = self.exposed_at_ends(&lower[range.clone()]);
            offsets.extend(at_ends.into_iter().map(|at| range.start + at));
        }
        offsets.sort_unstable();
        offsets.dedup();
        offsets
    }

    /// Offsets in `text` (lower case) where its end matches a control token's prefix, or its
    /// beginning a suffix.
    fn exposed_at_ends(&self, text: &str) -> Vec<usize> {
        let mut offsets = Vec::new();
        for (at, _) in text.char_indices().rev().take(self.longest) {
            if self.beginnings.contains(&text[at..]) {
                offsets.push(at + safest(&text[at..]));
            }
        }
        for (at, last) in text.char_indices().take(self.longest) {
            let beginning = &text[..at + last.len_utf8()];
            if self.ends.contains(beginning) {
                offsets.push(at);
            }
        }
        offsets
    }

    /// Whether `text` could be the middle of a control token.
    pub(super) fn is_middle(&self, text: &str) -> bool {
        self.within(text).is_some()
    }

    /// Offset of a character whose replacement keeps `text` from being the middle of a control
    /// token.
    fn within(&self, text: &str) -> Option<usize> {
        let inner = text.trim();
        let is_short = !inner.is_empty() && inner.chars().take(self.longest).count() < self.longest;
        let lower = inner.to_ascii_lowercase();
        let is_within = is_short && self.spellings.iter().any(|spelling| spelling.contains(&lower));
        is_within.then(|| text.len() - text.trim_start().len() + safest(inner))
    }
}

/// Offset of the best character to replace. No filter trims it, and JSON does not escape it.
fn safest(text: &str) -> usize {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\';
    text.char_indices().find(|&(_, c)| plain(c)).map_or(0, |(at, _)| at)
}

/// Replaces exposed characters of messages before a template sees them.
pub(super) struct Guard<'a> {
    marks: &'a ControlMarks,
    /// Characters that do not occur in the prompt.
    free: Box<dyn Iterator<Item = char>>,
    by_original: HashMap<char, char>,
    middles: Middles,
}

/// The treatment of texts that can be the middle of a control token, such as `turn`. A template
/// that compares them or changes their case would see a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Middles {
    Masked,
    Plain,
}

impl<'a> Guard<'a> {
    /// A guard whose stand-ins occur in none of `texts`.
    pub(super) fn new<'t>(
        marks: &'a ControlMarks,
        middles: Middles,
        texts: impl Iterator<Item = &'t str>,
    ) -> Self {
        let used: HashSet<char> = texts.flat_map(str::chars).filter(|c| is_stand_in(*c)).collect();
        let candidates = NONCHARACTERS.chain(PRIVATE);
        let free = Box::new(candidates.filter(move |c| !used.contains(c)));
        Guard { marks, free, by_original: HashMap::new(), middles }
    }

    /// `text` with stand-ins for exposed characters. The spellings `kept` stay as they are.
    ///
    /// Errors: [`Error::Template`] if the texts leave no unused stand-in.
    pub(super) fn mask(&mut self, text: &str, kept: &[&str]) -> Result<String> {
        let is_kept = |at: usize| {
            let mut found = kept.iter().flat_map(|spelling| text.match_indices(spelling));
            found.any(|(start, spelling)| (start..start + spelling.len()).contains(&at))
        };
        let mut masked = String::with_capacity(text.len());
        let mut end = 0;
        let mut exposed = self.marks.exposed(text);
        if exposed.is_empty() && self.middles == Middles::Masked {
            exposed.extend(self.marks.within(text));
        }
        for at in exposed.into_iter().filter(|&at| !is_kept(at)) {
            let Some(original) = text[at..].chars().next() else { continue };
            masked += &text[end..at];
            masked.push(self.stand_in(original)?);
            end = at + original.len_utf8();
        }
        Ok(masked + &text[end..])
    }

    fn stand_in(&mut self, original: char) -> Result<char> {
        if let Some(known) = self.by_original.get(&original) {
            return Ok(*known);
        }
        let none = || Error::Template("the messages use every private character there is".into());
        let stand_in = self.free.next().ok_or_else(none)?;
        self.by_original.insert(original, stand_in);
        Ok(stand_in)
    }

    /// The stand-ins and their originals.
    pub(super) fn stand_ins(self) -> StandIns {
        let swapped = self.by_original.into_iter().map(|(original, stand_in)| (stand_in, original));
        StandIns { originals: swapped.collect() }
    }
}

/// Characters without a meaning, which texts rarely contain.
const NONCHARACTERS: RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';
const PRIVATE: RangeInclusive<char> = '\u{f0000}'..='\u{ffffd}';

/// Whether filters must keep `character`, because it may be a stand-in.
pub(super) fn is_stand_in(character: char) -> bool {
    NONCHARACTERS.contains(&character) || PRIVATE.contains(&character)
}
