//! A short-lived process that works in another mount namespace.
//!
//! The caller of this crate has one thread and stays in the host's namespace. Whatever has to be
//! done inside another one is done by a forked child, which executes no program.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Error, error::Context, sys};

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

impl Helper {
    /// Runs `body` in a child and returns its answer. The child then waits, its namespaces alive,
    /// until the [`Helper`] is dropped or this process ends.
    pub(crate) fn start<T, F>(purpose: &'static str, body: F) -> Result<(T, Self), Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> Result<T, Error>,
    {
        let (answer, report) = pipe(purpose)?;
        let (wait, hold) = pipe(purpose)?;
        let Some(pid) = sys::fork().context("fork a helper to", purpose)? else {
            drop(answer);
            drop(hold);
            child(body, report, &wait);
        };
        drop((report, wait));
        let mut helper = Self {
            pid,
            hold: Some(hold),
        };
        let mut text = Vec::new();
        File::from(answer)
            .read_to_end(&mut text)
            .context("hear from the helper to", purpose)?;
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

    fn end(&mut self) -> nix::Result<WaitStatus> {
        drop(self.hold.take());
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
            // Somebody else may have reaped it; it is gone either way.
            let _ = self.end();
        }
    }
}

fn pipe(purpose: &'static str) -> Result<(OwnedFd, OwnedFd), Error> {
    pipe_with(PipeFlags::CLOEXEC).context("make a pipe to", purpose)
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
    if let Ok(text) = answer.map(|answer| serde_json::to_vec(&answer).unwrap_or_default()) {
        let mut report = File::from(report);
        if report.write_all(&text).is_ok() {
            drop(report);
            // Ends when the parent lets go, or with the parent.
            while rustix::io::read(wait, &mut [0u8; 1]) == Err(rustix::io::Errno::INTR) {}
        }
    }
    sys::exit_now(0);
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
    fn an_answer_and_an_error_come_back() {
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
        let error = Helper::run::<(), _>("die", || sys::exit_now(3)).unwrap_err();
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
    fn a_helper_lives_until_it_is_let_go() {
        let ((), helper) = Helper::start("wait", || Ok(())).unwrap();
        let process = PathBuf::from(format!("/proc/{}", helper.pid()));
        assert!(process.exists());
        drop(helper);
        assert!(!process.exists());
    }
}
