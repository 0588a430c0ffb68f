//! The progress of a download: a bar on a terminal, lines elsewhere.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanDuration, ProgressBar};

use crate::cli::progress::byte_bar;

/// The time between two lines about a long download.
const LINE_EVERY: Duration = Duration::from_secs(20);

pub struct Progress {
    /// The bar counts bytes even if there is no terminal to show it.
    bar: ProgressBar,
    /// Whether to write lines.
    lines: bool,
    quiet: bool,
    last_line: Cell<Instant>,
    file: RefCell<String>,
}

impl Progress {
    pub fn new(quiet: bool) -> Progress {
        Progress {
            bar: byte_bar("pulling", 0, quiet),
            lines: !quiet && !io::stderr().is_terminal(),
            quiet,
            last_line: Cell::new(Instant::now()),
            file: RefCell::default(),
        }
    }

    /// Starts a new count, up to `bytes` bytes.
    pub fn start(&self, bytes: u64) {
        self.bar.reset();
        self.bar.set_length(bytes);
    }

    /// Counts bytes that an earlier download left.
    pub fn skip(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.bar.reset_eta();
    }

    /// Counts bytes that have arrived.
    pub fn add(&self, bytes: u64) {
        self.bar.inc(bytes);
        if self.lines && self.last_line.get().elapsed() >= LINE_EVERY {
            self.line(&format!("{}: {}", self.file.borrow(), self.rate()));
        }
    }

    /// Subtracts bytes that must be downloaded again.
    pub fn take_back(&self, bytes: u64) {
        self.bar.dec(bytes);
        self.bar.reset_eta();
    }

    pub fn begin(&self, file: &str) {
        self.file.replace(file.into());
    }

    pub fn end(&self, file: &str, bytes: u64) {
        if self.lines {
            self.line(&format!("{file}: {}, whole", BinaryBytes(bytes)));
        }
    }

    /// Prints a note, unless the program is quiet.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.bar.suspend(|| eprintln!("{text}"));
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        eprintln!("{text}");
        self.last_line.set(Instant::now());
    }

    fn rate(&self) -> String {
        let (at, all) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let percent = (100 * u128::from(at)).checked_div(all.into()).unwrap_or(100);
        let rate = BinaryBytes(self.bar.per_sec() as u64);
        let left = HumanDuration(self.bar.eta());
        format!("{percent}% of {} together, {rate}/s, {left} left", BinaryBytes(all))
    }
}
