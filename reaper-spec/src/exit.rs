//! How a process ended.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "how")]
#[non_exhaustive]
pub enum ExitStatus {
    /// It called `exit` with this code.
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
        /// Whether a core was dumped.
        #[serde(default)]
        core: bool,
    },
    /// Nobody could observe the end: its monitor was killed, or the machine restarted.
    Lost {
        /// What is known about it.
        reason: String,
    },
}

impl ExitStatus {
    /// The code that shells, runc and Kubernetes report: the exit code itself, 128 plus the
    /// signal's number, and 137 where the end was not observed, never 0.
    pub fn code(&self) -> u32 {
        match self {
            Self::Exited { code } => u32::from(*code),
            Self::Signaled { signal, .. } => 128 + u32::try_from(*signal).unwrap_or(0),
            Self::Lost { .. } => 137,
        }
    }

    /// Whether the process said that it succeeded.
    pub fn success(&self) -> bool {
        *self == Self::Exited { code: 0 }
    }
}

/// The end of a process: how, and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How the process ended.
    #[serde(flatten)]
    pub status: ExitStatus,
    /// When the end was observed.
    pub at: Timestamp,
}
