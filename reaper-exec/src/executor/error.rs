//! Why an executor fails.

use reaper_spec::Status;

use super::values::Target;

/// The result of an executor's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an executor did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process does not exist.
    #[error("{0} does not exist")]
    NotFound(Target),
    /// The id is taken.
    #[error("{0} exists already")]
    AlreadyExists(Target),
    /// The process has ended.
    #[error("{0} has ended")]
    Ended(Target),
    /// It is not in a status in which this can be done.
    #[error("cannot {operation} {target}: it is {status}")]
    Status {
        /// What was asked.
        operation: String,
        /// Of what.
        target: Target,
        /// Where it is.
        status: Status,
    },
    /// A step of making the process failed.
    #[error("{step}: {message}")]
    Setup {
        /// The step, for example `open the stdout FIFO /run/x`.
        step: String,
        /// What went wrong.
        message: String,
        /// The errno, where it was a system call.
        errno: Option<i32>,
    },
    /// The program could not be executed.
    #[error("exec {program}: {message}")]
    Execve {
        /// The program, as it was looked up.
        program: String,
        /// What went wrong, in words.
        message: String,
        /// The errno of execve(2).
        errno: i32,
    },
    /// The host, or this executor, cannot do it.
    #[error("{operation} is not supported: {reason}")]
    Unsupported {
        /// What was asked.
        operation: String,
        /// Why.
        reason: String,
    },
    /// The monitor is there and does not answer: it is stopped, starved, or hangs in a system call.
    #[error(
        "the monitor of {target} (process {monitor}) does not answer: it is stopped, starved or \
         hangs; SIGKILL and a forced deletion work without it"
    )]
    Unresponsive {
        /// Whose monitor.
        target: Target,
        /// Its pid.
        monitor: u32,
    },
    /// The monitor cannot be reached, or answered nonsense.
    #[error("the monitor of {target}: {reason}")]
    Monitor {
        /// Whose monitor.
        target: Target,
        /// What happened.
        reason: String,
    },
    /// A file or a system call of the executor's own failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done, to what.
        operation: String,
        /// What went wrong.
        source: std::io::Error,
    },
}
