//! Versions of records.

use std::{fmt, io, str::FromStr};

use rustix::{
    io::retry_on_intr,
    rand::{GetRandomFlags, getrandom},
};

/// A version of one container's record. Any two states of a record have different revisions,
/// also when the container was deleted and made again in between.
///
/// As text it has 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revision(u128);

/// A text is not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a revision has 32 hexadecimal digits")]
pub struct ParseRevisionError;

impl Revision {
    /// A revision that no record has; for implementations of [`StateStore`](crate::StateStore).
    ///
    /// Its bits are random: a counter would have to survive the container's deletion.
    ///
    /// # Errors
    /// The kernel has no random numbers to give.
    pub fn unique() -> io::Result<Self> {
        let mut bytes = [0; 16];
        let filled = retry_on_intr(|| getrandom(&mut bytes, GetRandomFlags::empty()))?;
        if filled == bytes.len() {
            Ok(Self(u128::from_ne_bytes(bytes)))
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    /// The revision with this number; for implementations of [`StateStore`](crate::StateStore).
    pub fn from_number(number: u128) -> Self {
        Self(number)
    }

    /// The revision's number; for implementations of [`StateStore`](crate::StateStore).
    pub fn number(&self) -> u128 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Revision {
    type Err = ParseRevisionError;

    fn from_str(text: &str) -> Result<Self, ParseRevisionError> {
        // `from_str_radix` would take a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseRevisionError);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| ParseRevisionError)
    }
}
