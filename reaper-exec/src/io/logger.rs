//! `binary://`: a program that takes the output, by containerd's protocol.
//!
//! The program finds the output on descriptor 3, the error output on 4, and closes 5 (or writes to
//! it) when it is ready. `CONTAINER_ID` and `CONTAINER_NAMESPACE` name the container. When the
//! process has ended it reads the end of file on both, and should end by itself. If it does not it
//! gets SIGTERM after a while, and SIGKILL after another.
//!
//! It alone has the read ends: when it ends before the process, writes of the process fail (EPIPE,
//! or SIGPIPE), as with containerd's own shims. To keep the pipes would block the process for ever.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{Pid, pipe2},
};
use reaper_spec::ContainerId;

use super::{
    contract::{IoError, Stream},
    uri::LoggerCommand,
};
use crate::before_exec::{close_before_exec, inherit_three};

/// How long loggers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoggerLimits {
    /// To get ready. The process that it logs for can be started only afterwards.
    pub ready: Duration,
    /// From the end of file to SIGTERM. containerd sends that at once, and so ends a logger that
    /// does not expect it before it has read what is left.
    pub finish: Duration,
    /// From SIGTERM to SIGKILL.
    pub terminate: Duration,
}

impl Default for LoggerLimits {
    fn default() -> Self {
        Self {
            ready: Duration::from_secs(10),
            finish: Duration::from_secs(1),
            terminate: Duration::from_secs(12),
        }
    }
}

/// A search path with which loggers written as scripts can work.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running logger, a child of the monitor.
#[derive(Debug)]
pub(super) struct Logger {
    pid: Pid,
    stream: Stream,
    program: PathBuf,
    readiness: Readiness,
    limits: LoggerLimits,
    phase: Phase,
}

#[derive(Debug)]
enum Readiness {
    /// Not yet. The descriptor reports when it is; it has time until the deadline.
    Awaited(OwnedFd, Instant),
    Ready,
    /// Its time was over.
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Other streams are still being opened: dropping it reaps the process.
    Starting,
    /// The monitor reaps it from now on.
    Serving,
    /// It has the end of file, and until then to end by itself.
    Finishing(Instant),
    /// It has SIGTERM, and until then to obey.
    Terminating(Instant),
    Killed,
    Reaped,
}

impl Logger {
    /// Starts a logger. Returns it with the write ends for the output and the error output,
    /// blocking.
    pub(super) fn start(
        stream: Stream,
        command: &LoggerCommand,
        id: &ContainerId,
        namespace: &str,
        limits: LoggerLimits,
    ) -> Result<(Self, [OwnedFd; 2]), IoError> {
        let program = command.program();
        let failed = |source: std::io::Error| IoError::System {
            operation: format!("{stream}: start the logger {}", command.program.display()),
            source,
        };
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(errno.into()));
        let ((output, output_end), (errors, errors_end)) = (pipe()?, pipe()?);
        let (ready, ready_end) = pipe()?;

        let mut prepared = Command::new(program);
        prepared
            .args(&command.args)
            .env_clear()
            .env("CONTAINER_ID", id.as_str())
            .env("CONTAINER_NAMESPACE", namespace)
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let reserved = inherit_three(&mut prepared, [output, errors, ready_end]).map_err(failed)?;
        close_before_exec(&mut prepared).map_err(failed)?;
        let child = prepared.spawn().map_err(failed)?;
        drop((prepared, reserved));

        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let logger = Self {
            pid,
            stream,
            program: command.program.clone(),
            readiness: Readiness::Awaited(ready, Instant::now() + limits.ready),
            limits,
            phase: Phase::Starting,
        };
        Ok((logger, [output_end, errors_end]))
    }

    /// The monitor reaps it from now on.
    pub(super) fn bound(&mut self) {
        self.phase = Phase::Serving;
    }

    /// What to wait for, with `POLLIN`, until it is ready.
    pub(super) fn interest(&self) -> Option<BorrowedFd<'_>> {
        match &self.readiness {
            Readiness::Awaited(ready, _) => Some(ready.as_fd()),
            Readiness::Ready | Readiness::Late => None,
        }
    }

    /// A descriptor has reported something.
    pub(super) fn ready(&mut self, fd: RawFd) {
        if self.interest().is_some_and(|ready| ready.as_raw_fd() == fd) {
            self.readiness = Readiness::Ready;
        }
    }

    pub(super) fn is_ready(&self) -> Result<bool, IoError> {
        match self.readiness {
            Readiness::Ready => Ok(true),
            Readiness::Awaited(..) => Ok(false),
            Readiness::Late => Err(IoError::LoggerNotReady {
                stream: self.stream.name(),
                program: self.program.clone(),
                waited: self.limits.ready,
            }),
        }
    }

    /// The process has ended, and the write ends are closed or about to be.
    pub(super) fn finish(&mut self) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Finishing(Instant::now() + self.limits.finish);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match (self.phase, &self.readiness) {
            (Phase::Finishing(deadline) | Phase::Terminating(deadline), _) => Some(deadline),
            (Phase::Serving, Readiness::Awaited(_, deadline)) => Some(*deadline),
            _ => None,
        }
    }

    /// Takes the next step if its time has come.
    pub(super) fn timeout(&mut self) {
        let now = Instant::now();
        let late = matches!(self.readiness, Readiness::Awaited(_, deadline) if deadline <= now);
        let (signal, next) = match self.phase {
            Phase::Serving if late => {
                self.readiness = Readiness::Late;
                (Signal::SIGKILL, Phase::Killed)
            }
            Phase::Finishing(deadline) if deadline <= now => (
                Signal::SIGTERM,
                Phase::Terminating(now + self.limits.terminate),
            ),
            Phase::Terminating(deadline) if deadline <= now => (Signal::SIGKILL, Phase::Killed),
            _ => return,
        };
        // The pid is its own until it is reaped, and a zombie does not mind.
        let _ = kill(self.pid, signal);
        self.phase = next;
    }

    /// The pid, until it was reaped.
    pub(super) fn pid(&self) -> Option<u32> {
        if self.is_ended() {
            None
        } else {
            u32::try_from(self.pid.as_raw()).ok()
        }
    }

    /// The monitor has reaped `pid`.
    pub(super) fn reaped(&mut self, pid: u32) {
        if self.pid() == Some(pid) {
            if self.phase == Phase::Serving {
                tracing::warn!(
                    pid,
                    program = %self.program.display(),
                    stream = %self.stream,
                    "the logger ended before the process that it logs for, whose writes fail from now on"
                );
            }
            self.phase = Phase::Reaped;
        }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.phase == Phase::Reaped
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        if self.is_ended() {
            return;
        }
        let _ = kill(self.pid, Signal::SIGKILL);
        if self.phase == Phase::Starting {
            while waitpid(self.pid, None) == Err(Errno::EINTR) {}
        }
    }
}
