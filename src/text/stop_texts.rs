//! Texts that end an answer.

/// Finds the first of some texts in a stream. It holds back what may be the beginning of one.
#[derive(Default)]
pub struct StopTexts {
    texts: Vec<String>,
    held: String,
}

impl StopTexts {
    /// Empty texts are ignored.
    pub fn new(texts: Vec<String>) -> StopTexts {
        let texts = texts.into_iter().filter(|text| !text.is_empty()).collect();
        StopTexts { texts, held: String::new() }
    }

    /// Takes the next piece. Returns the text that is certainly before a stop text, and the stop
    /// text if one was found.
    pub fn push(&mut self, piece: &str) -> (String, Option<String>) {
        self.held += piece;
        let found = self.texts.iter().filter_map(|text| Some((self.held.find(text)?, text)));
        if let Some((at, text)) = found.min_by_key(|(at, _)| *at) {
            let text = text.clone();
            self.held.truncate(at);
            return (self.flush(), Some(text));
        }
        let begun = self.texts.iter().map(|text| begun(&self.held, text)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - begun);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// The text that was held back, at the end of the stream.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Bytes at the end of `text` that are the beginning of `stop`.
fn begun(text: &str, stop: &str) -> usize {
    let mut ends = stop.char_indices().rev().map(|(at, _)| at).filter(|&at| at > 0);
    ends.find(|&len| text.ends_with(&stop[..len])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stop = StopTexts::new(stops.iter().map(|text| (*text).to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            let (clear, found) = stop.push(piece);
            text += &clear;
            if found.is_some() {
                return (text, true);
            }
        }
        text += &stop.flush();
        (text, false)
    }

    #[test]
    fn stop_texts_are_found_across_pieces() {
        assert_eq!(run(&["END"], &["a E", "N", "D b"]), ("a ".into(), true));
        assert_eq!(run(&["OVER"], &["a O", "V", "al O"]), ("a OVal O".into(), false));
        assert_eq!(run(&["bc", "ab"], &["xabc"]), ("x".into(), true));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["ß¶"], &["Stra", "ß", "e", "ß", "¶"]), ("Straße".into(), true));
        assert_eq!(run(&[""], &["a", "b"]), ("ab".into(), false));
        assert_eq!(run(&[], &["a"]), ("a".into(), false));
    }
}
