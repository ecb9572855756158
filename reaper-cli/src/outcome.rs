//! How this program ends.

use reaper_spec::ExitStatus;

use crate::sys;

/// How this program ends when it did what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExitAction {
    /// With this exit code.
    Code(u8),
    /// As a process did, signal included: for who waits for this one in its place.
    ExitLike(ExitStatus),
}

impl ExitAction {
    /// It was done.
    pub(crate) const DONE: Self = Self::Code(0);

    /// The code of a process that ended so, 128 and the signal's number for a signal.
    pub(crate) fn of(status: &ExitStatus) -> Self {
        Self::Code(code(status))
    }

    /// The code to end with. Does not return if a signal is to end this program.
    pub(crate) fn finish(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::ExitLike(ExitStatus::Signaled { signal, .. }) => sys::exit_by_signal(signal),
            Self::ExitLike(status) => code(&status),
        }
    }
}

fn code(status: &ExitStatus) -> u8 {
    u8::try_from(status.code()).unwrap_or(u8::MAX)
}
