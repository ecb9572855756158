//! A short-lived process that works in another mount namespace.
//!
//! The caller of this crate has one thread and stays in the host's namespace. Whatever has to be
//! done inside another one is done by a forked child, which executes no program.

use std::{
    fs::File,
    io::{self, Read, Write},
    marker::PhantomData,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{Signal, kill_process},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::syscall;
use crate::contract::{Context, Error};

/// The child's answer, as it crosses the pipe.
#[derive(Serialize, Deserialize)]
enum Answer<T> {
    Done(T),
    Failed {
        operation: String,
        path: String,
        errno: i32,
    },
    Unprotected {
        path: String,
        errno: i32,
    },
    Kind {
        destination: String,
        directory: bool,
    },
}

/// A child that has answered and waits until it is let go.
pub(crate) struct Helper {
    pid: Pid,
    hold: Option<OwnedFd>,
}

/// A child that is at work.
pub(crate) struct Running<T> {
    purpose: &'static str,
    answer: OwnedFd,
    helper: Helper,
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Running<T> {
    /// Runs `body` in a child. It is waited for when the [`Running`] is dropped.
    pub(crate) fn begin<F>(purpose: &'static str, body: F) -> Result<Self, Error>
    where
        F: FnOnce() -> Result<T, Error>,
    {
        let (answer, report) = pipe(purpose)?;
        let (wait, hold) = pipe(purpose)?;
        let Some(pid) = syscall::fork().context("fork a helper to", purpose)? else {
            drop(answer);
            drop(hold);
            child(body, report, &wait);
        };
        let helper = Helper {
            pid,
            hold: Some(hold),
        };
        Ok(Self {
            purpose,
            answer,
            helper,
            kind: PhantomData,
        })
    }

    /// Waits for the answer. The child then waits in its turn, as [`Helper::start`] says.
    pub(crate) fn finish(self) -> Result<(T, Helper), Error> {
        let Self {
            purpose,
            answer,
            mut helper,
            ..
        } = self;
        let text = receive(answer).context("hear from the helper to", purpose)?;
        match serde_json::from_slice(&text) {
            Ok(Answer::Done(value)) => Ok((value, helper)),
            Ok(Answer::Failed {
                operation,
                path,
                errno,
            }) => {
                let source = io::Error::from_raw_os_error(errno);
                Err(Error::Helper {
                    operation,
                    path: path.into(),
                    source,
                })
            }
            Ok(Answer::Unprotected { path, errno }) => {
                let source = io::Error::from_raw_os_error(errno);
                Err(Error::Unprotected {
                    path: path.into(),
                    source,
                })
            }
            Ok(Answer::Kind {
                destination,
                directory,
            }) => Err(Error::MountKind {
                destination: destination.into(),
                directory,
            }),
            Err(_) => {
                let status = helper
                    .end()
                    .map_or_else(|errno| errno.to_string(), |s| format!("{s:?}"));
                Err(Error::HelperDied {
                    operation: purpose,
                    status,
                })
            }
        }
    }
}

impl Helper {
    /// Runs `body` in a child and returns its answer. The child then waits, its namespaces alive,
    /// until the [`Helper`] is dropped or this process ends.
    pub(crate) fn start<T, F>(purpose: &'static str, body: F) -> Result<(T, Self), Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Result<T, Error>,
    {
        Running::begin(purpose, body)?.finish()
    }

    /// Runs `body` in a child that ends when it has answered.
    pub(crate) fn run<T, F>(purpose: &'static str, body: F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Result<T, Error>,
    {
        Self::start(purpose, body).map(|(value, _helper)| value)
    }

    /// The child's pid.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The same, as a number.
    pub(crate) fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    fn end(&mut self) -> nix::Result<WaitStatus> {
        drop(self.hold.take());
        // Closing our end of `hold` is not enough: a helper forked by another thread may have
        // inherited it, and this helper would never see end of file. Kill it instead.
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid.as_raw()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        loop {
            match waitpid(self.pid, None) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other,
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if self.hold.is_some() {
            // The embedding program may have reaped it already; it has ended either way.
            let _ = self.end();
        }
    }
}

fn pipe(purpose: &'static str) -> Result<(OwnedFd, OwnedFd), Error> {
    pipe_with(PipeFlags::CLOEXEC).context("make a pipe to", purpose)
}

/// Reads an answer: its length, and then itself. Its end is no sign: a helper that another thread
/// has started may hold the pipe, too.
fn receive(answer: OwnedFd) -> io::Result<Vec<u8>> {
    let mut answer = File::from(answer);
    let mut length = [0; size_of::<u64>()];
    match answer.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Vec::new()),
        other => other?,
    }
    let mut text = Vec::new();
    answer
        .take(u64::from_ne_bytes(length))
        .read_to_end(&mut text)?;
    Ok(text)
}

fn send(report: OwnedFd, text: &[u8]) -> io::Result<()> {
    let mut report = File::from(report);
    report.write_all(&(text.len() as u64).to_ne_bytes())?;
    report.write_all(text)
}

fn child<T: Serialize>(
    body: impl FnOnce() -> Result<T, Error>,
    report: OwnedFd,
    wait: &OwnedFd,
) -> ! {
    let answer = catch_unwind(AssertUnwindSafe(|| match body() {
        Ok(value) => Answer::Done(value),
        Err(error) => failure(error),
    }));
    // A panic has said what it is on stderr; the parent sees an empty answer.
    if let Ok(text) = answer.map(|answer| serde_json::to_vec(&answer).unwrap_or_default())
        && send(report, &text).is_ok()
    {
        // Ends when the parent lets go, or with the parent.
        while rustix::io::read(wait, &mut [0u8; 1]) == Err(rustix::io::Errno::INTR) {}
    }
    syscall::exit_now(0);
}

fn failure<T>(error: Error) -> Answer<T> {
    let errno = error.errno().unwrap_or(nix::libc::EIO);
    let shown = |path: PathBuf| path.to_string_lossy().into_owned();
    match error {
        Error::System {
            operation, path, ..
        } => Answer::Failed {
            operation: operation.to_owned(),
            path: shown(path),
            errno,
        },
        Error::Helper {
            operation, path, ..
        } => Answer::Failed {
            operation,
            path: shown(path),
            errno,
        },
        Error::Unprotected { path, .. } => Answer::Unprotected {
            path: shown(path),
            errno,
        },
        Error::MountKind {
            destination,
            directory,
        } => Answer::Kind {
            destination: shown(destination),
            directory,
        },
        other => Answer::Failed {
            operation: other.to_string(),
            path: String::new(),
            errno,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helper_returns_answer_or_error() {
        assert_eq!(Helper::run("add", || Ok(1 + 1)).unwrap(), 2);
        let error = Helper::run::<(), _>("fail", || {
            Err(io::Error::from_raw_os_error(nix::libc::EBUSY)).context("mount", "/x")
        });
        let error = error.unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::EBUSY));
        assert!(error.to_string().starts_with("mount /x: "), "{error}");
    }

    #[test]
    fn a_helper_that_dies_is_an_error() {
        let error = Helper::run::<(), _>("die", || syscall::exit_now(3)).unwrap_err();
        assert!(
            matches!(
                error,
                Error::HelperDied {
                    operation: "die",
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn helper_lives_until_dropped() {
        let ((), helper) = Helper::start("wait", || Ok(())).unwrap();
        let process = PathBuf::from(format!("/proc/{}", helper.pid()));
        assert!(process.exists());
        drop(helper);
        assert!(!process.exists());
    }
}
