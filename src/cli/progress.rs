//! Progress bars.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of bytes with their rate.
pub fn byte_bar(action: &str, bytes: u64, quiet: bool) -> ProgressBar {
    let template = format!(
        "{action} [{{bar:30}}] {{bytes}} of {{total_bytes}}, {{bytes_per_sec}}, {{eta}} left"
    );
    let style =
        ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    progress_bar(bytes, quiet).with_style(style.progress_chars("=> "))
}

/// A bar on stderr, invisible if `quiet` or where stderr is no terminal.
pub fn progress_bar(length: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    ProgressBar::with_draw_target(Some(length), target)
}
