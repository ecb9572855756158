//! Signals by name and number.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A signal's number, 1 to 64, real-time signals included; 0 tests for existence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Signal(i32);

/// A text or number that does not name a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no signal: use a name as TERM or SIGTERM, RTMIN+1, or a number from 0 to 64")]
pub struct ParseSignalError(String);

const NAMES: [(&str, i32); 33] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", libc::SIGBUS),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", libc::SIGUSR1),
    ("SEGV", 11),
    ("USR2", libc::SIGUSR2),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

impl Signal {
    /// SIGSTOP.
    pub(crate) const STOP: Self = Self(libc::SIGSTOP);
    /// SIGCONT.
    pub(crate) const CONT: Self = Self(libc::SIGCONT);
    /// SIGKILL.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// SIGTERM.
    pub const TERM: Self = Self(libc::SIGTERM);

    /// Whether it ends a process that has not said what to do about it (signal(7)).
    pub(crate) fn ends_by_default(self) -> bool {
        const HARMLESS: [i32; 9] = [
            0,
            libc::SIGCHLD,
            libc::SIGURG,
            libc::SIGWINCH,
            libc::SIGCONT,
            libc::SIGSTOP,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
        ];
        !HARMLESS.contains(&self.0)
    }

    /// The number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl TryFrom<i32> for Signal {
    type Error = ParseSignalError;
    fn try_from(number: i32) -> Result<Self, ParseSignalError> {
        if (0..=64).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ParseSignalError(number.to_string()))
        }
    }
}

impl From<Signal> for i32 {
    fn from(signal: Signal) -> i32 {
        signal.0
    }
}

impl FromStr for Signal {
    type Err = ParseSignalError;
    fn from_str(text: &str) -> Result<Self, ParseSignalError> {
        let refused = || ParseSignalError(text.to_owned());
        if let Ok(number) = text.parse::<i32>() {
            return Self::try_from(number).map_err(|_| refused());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(Self(number));
        }
        let (base, rest) = if let Some(rest) = name.strip_prefix("RTMIN") {
            (libc::SIGRTMIN(), rest)
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            (libc::SIGRTMAX(), rest)
        } else {
            return Err(refused());
        };
        let offset = if rest.is_empty() {
            0
        } else {
            rest.parse::<i8>().map_err(|_| refused())?
        };
        let number = base + i32::from(offset);
        if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number) {
            Ok(Self(number))
        } else {
            Err(refused())
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}
