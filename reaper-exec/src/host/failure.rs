//! What a monitor's refusal is to the caller of an executor.

use crate::{
    executor::{Error, Target},
    protocol::Failure,
};

impl Failure {
    /// The failure as the caller of `target` sees it.
    pub(super) fn into_error(self, target: &Target) -> Error {
        let target = target.clone();
        match self {
            Self::NotFound => Error::NotFound(target),
            Self::AlreadyExists => Error::AlreadyExists(target),
            Self::Ended => Error::Ended(target),
            Self::Status { operation, status } => Error::Status {
                operation,
                target,
                status,
            },
            Self::Setup {
                step,
                message,
                errno,
            } => Error::Setup {
                step,
                message,
                errno,
            },
            Self::Execve {
                program,
                message,
                errno,
            } => Error::Execve {
                program,
                message,
                errno,
            },
            Self::Unsupported { operation, reason } => Error::Unsupported { operation, reason },
            Self::Refused { reason } => Error::Monitor { target, reason },
        }
    }
}
