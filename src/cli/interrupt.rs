//! Ctrl-C and SIGTERM: the first one stops the current work, the second one ends the program.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use crate::error::{Error, Result};

/// Exit code after Ctrl-C: 128 + SIGINT.
pub const EXIT_CODE: u8 = 130;

const IDLE: u8 = 0;
const WORKING: u8 = 1;
const STOPPING: u8 = 2;

/// A process has one terminal, and so one state.
static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// Takes over Ctrl-C. Outside of [`Work`] it ends the program immediately.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        if STATE.compare_exchange(WORKING, STOPPING, SeqCst, SeqCst).is_err() {
            std::process::exit(EXIT_CODE.into());
        }
    })
    .map_err(|error| Error::Input(format!("Ctrl-C cannot be handled: {error}")))
}

/// Work that a first Ctrl-C stops. It ends when this is dropped.
pub struct Work(());

impl Work {
    pub fn begin() -> Work {
        STATE.store(WORKING, SeqCst);
        Work(())
    }

    /// Whether Ctrl-C was pressed since [`Work::begin`].
    pub fn stopped(&self) -> bool {
        STATE.load(SeqCst) == STOPPING
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        STATE.store(IDLE, SeqCst);
    }
}
