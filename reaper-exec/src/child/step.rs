//! The steps of setting up a process, named for the error of one that fails.

use std::io;

use crate::{hooks::HookFailure, namespaces::Refused, protocol::ChildReport};

/// A step that failed.
pub(super) struct Failed {
    pub(super) step: String,
    pub(super) source: io::Error,
}

impl From<Failed> for ChildReport {
    fn from(Failed { step, source }: Failed) -> Self {
        Self::Failed {
            step,
            errno: source.raw_os_error(),
            message: source.to_string(),
        }
    }
}

impl From<HookFailure> for Failed {
    fn from(HookFailure { step, message }: HookFailure) -> Self {
        Self {
            step,
            source: io::Error::other(message),
        }
    }
}

impl From<Refused> for Failed {
    fn from(Refused { step, source }: Refused) -> Self {
        Self { step, source }
    }
}

/// A step that failed with an error whose message has the errno already.
pub(super) fn from_error(step: &str, error: &dyn std::error::Error) -> Failed {
    Failed {
        step: step.to_owned(),
        source: io::Error::other(error.to_string()),
    }
}

/// Names the step of what can fail.
pub(super) trait Step<T> {
    fn step(self, step: impl Into<String>) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T, Failed> {
        self.map_err(|source| Failed {
            step: step.into(),
            source: source.into(),
        })
    }
}
