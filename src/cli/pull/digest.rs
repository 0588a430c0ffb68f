//! Checksums of files, as the Hub uses them to name contents.

use sha1::{Digest as _, Sha1};
use sha2::Sha256;

/// A checksum in progress.
#[derive(Clone)]
pub enum Digest {
    Sha256(Sha256),
    /// git's name of a blob: SHA-1 of `blob`, the size and the content (git-hash-object).
    Git(Sha1),
}

impl Digest {
    /// The kind of checksum in an ETag; `None` if it is neither.
    pub fn of(etag: &str, bytes: u64) -> Option<Digest> {
        match (etag.len(), etag.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            (64, true) => Some(Digest::Sha256(Sha256::new())),
            (40, true) => Some(Digest::Git(Sha1::new_with_prefix(format!("blob {bytes}\0")))),
            _ => None,
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Digest::Sha256(hash) => hash.update(bytes),
            Digest::Git(hash) => hash.update(bytes),
        }
    }

    /// The checksum in hexadecimal digits.
    pub fn finish(self) -> String {
        let hex = |hash: &[u8]| hash.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Digest::Sha256(hash) => hex(&hash.finalize()),
            Digest::Git(hash) => hex(&hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected values are those of `printf 'hello\n' | sha256sum` and
    /// `| git hash-object --stdin`.
    #[test]
    fn as_the_tools_make_them() {
        for etag in [
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "ce013625030ba8dba906f756967f9e9ca394464a",
        ] {
            let mut digest = Digest::of(etag, 6).unwrap();
            digest.update(b"hel");
            digest.update(b"lo\n");
            assert_eq!(digest.finish(), etag);
        }
        for other in ["", "abc", "d41d8cd98f00b204e9800998ecf8427e", &"g".repeat(64)] {
            assert!(Digest::of(other, 6).is_none());
        }
    }
}
