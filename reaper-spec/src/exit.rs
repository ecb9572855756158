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
    /// The end was not observed: the monitor was killed, or the machine restarted.
    #[serde(rename = "lost")]
    Unknown {
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
            Self::Unknown { .. } => 137,
        }
    }

    /// Whether the process said that it succeeded.
    pub fn success(&self) -> bool {
        *self == Self::Exited { code: 0 }
    }
}

/// The end of a process: how, and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exit {
    /// How the process ended.
    #[serde(flatten)]
    pub status: ExitStatus,
    /// When the end was observed.
    pub at: Timestamp,
}

impl Exit {
    /// An end as `status` says, observed at `at`.
    pub fn new(status: ExitStatus, at: Timestamp) -> Self {
        Self { status, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_shell_and_unknown_exit_is_never_success() {
        let exited = |code| ExitStatus::Exited { code };
        assert_eq!((exited(0).code(), exited(0).success()), (0, true));
        assert_eq!((exited(255).code(), exited(255).success()), (255, false));
        let killed = ExitStatus::Signaled {
            signal: 9,
            core: false,
        };
        assert_eq!((killed.code(), killed.success()), (137, false));
        let term = ExitStatus::Signaled {
            signal: 15,
            core: false,
        };
        assert_eq!(term.code(), 143);
        let lost = ExitStatus::Unknown {
            reason: "the monitor was killed".into(),
        };
        assert_eq!((lost.code(), lost.success()), (137, false));
    }

    #[test]
    fn a_record_tells_a_signal_from_a_code() {
        let at = Timestamp::from(std::time::UNIX_EPOCH);
        let exit = Exit {
            status: ExitStatus::Signaled {
                signal: 9,
                core: false,
            },
            at,
        };
        let json = serde_json::to_string(&exit).unwrap();
        assert_eq!(
            json,
            r#"{"how":"signaled","signal":9,"core":false,"at":"1970-01-01T00:00:00.000000000Z"}"#
        );
        let old = r#"{"how":"signaled","signal":9,"at":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(serde_json::from_str::<Exit>(old).unwrap(), exit);
    }
}
