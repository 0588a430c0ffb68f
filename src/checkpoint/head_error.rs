//! Errors of reading a header from the first bytes of a file.

/// Why the first bytes of a file do not give its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadError {
    /// The bytes end before the header, and the file is longer.
    Short(String),
    /// The file is broken, in one line.
    Bad(String),
}

impl HeadError {
    pub(crate) fn reason(self) -> String {
        let (HeadError::Short(reason) | HeadError::Bad(reason)) = self;
        reason
    }
}
