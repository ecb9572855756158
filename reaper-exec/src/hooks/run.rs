//! Running one hook after another.

use std::{
    fmt,
    fs::File,
    io::{self, Seek as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, pipe2},
};
use reaper_spec::{Hook, HookKind};
use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limit;
use crate::{
    before_exec::{change_root_before_exec, reset_signals_before_exec, separate_before_exec},
    procfs,
};

/// How much of the end of what a hook writes is kept for the error.
const TAIL: usize = 1024;

/// How much is read of what is left in the pipe once a hook has exited: what it has started may go on
/// writing.
const LEFT: usize = 1 << 20;

/// How long a hook that was killed may take to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A hook that failed, named by its kind and its path, and why.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HookFailure {
    pub(crate) step: String,
    pub(crate) message: String,
}

impl fmt::Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.message)
    }
}

/// What hooks are run in, beside the namespaces of the caller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    /// Their root, if it is not the caller's.
    pub(crate) root: Option<BorrowedFd<'a>>,
    /// Their working directory, as the caller names it.
    pub(crate) directory: &'a Path,
    /// When this hangs up the caller no longer waits for the hooks: they are killed.
    pub(crate) wanted: Option<BorrowedFd<'a>>,
}

/// Runs hooks in their order until one fails.
pub(crate) fn run(
    kind: HookKind,
    hooks: &[Hook],
    state: &Value,
    surroundings: Surroundings<'_>,
) -> Result<(), HookFailure> {
    hooks
        .iter()
        .try_for_each(|hook| run_one(kind, hook, state, surroundings))
}

/// Runs all hooks in their order, whether they fail or not, and kills what they have left: they are those of
/// the end, after which no other process would. The caller is a subreaper without other children.
pub(crate) fn run_all(
    kind: HookKind,
    hooks: &[Hook],
    state: &Value,
    surroundings: Surroundings<'_>,
) -> Vec<HookFailure> {
    let run = |hook| run_one(kind, hook, state, surroundings).err();
    let failures = hooks.iter().filter_map(run).collect();
    kill_children(Instant::now() + KILL_TIMEOUT);
    failures
}

fn run_one(
    kind: HookKind,
    hook: &Hook,
    state: &Value,
    surroundings: Surroundings<'_>,
) -> Result<(), HookFailure> {
    let failed = |message| HookFailure {
        step: format!("run the {kind} hook {}", hook.path.display()),
        message,
    };
    let limit = limit(kind, hook);
    let deadline = Instant::now() + limit;
    let started = start(hook, state, surroundings);
    let mut running = started.map_err(|error| failed(format!("it cannot be executed: {error}")))?;
    let end = running.wait(deadline, surroundings.wanted);
    let end = end.map_err(|error| failed(format!("it cannot be waited for: {error}")))?;
    let reason = match end {
        End::Exited(status) if status.success() => return Ok(()),
        End::Exited(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
        },
        End::TookTooLong => format!("it did not end within {} s", limit.as_secs()),
        End::Unwanted => "its caller has gone away".to_owned(),
    };
    Err(failed(match running.output.text() {
        text if text.is_empty() => reason,
        text => format!("{reason}: {text}"),
    }))
}

/// How a hook has ended.
enum End {
    Exited(ExitStatus),
    TookTooLong,
    Unwanted,
}

/// A hook that runs.
struct Running {
    child: Child,
    exit: OwnedFd,
    output: Output,
}

fn start(hook: &Hook, state: &Value, surroundings: Surroundings<'_>) -> io::Result<Running> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let path = hook.path.as_os_str();
    let mut command = Command::new(&hook.path);
    command
        .arg0(hook.args.first().map_or(path, |name| name.as_ref()))
        .args(hook.args.iter().skip(1))
        .env_clear()
        .envs(hook.env.iter().filter_map(|entry| entry.split_once('=')))
        .current_dir(surroundings.directory)
        .stdin(input(state)?)
        .stdout(theirs.try_clone()?)
        .stderr(theirs);
    reset_signals_before_exec(&mut command);
    separate_before_exec(&mut command)?;
    if let Some(root) = surroundings.root {
        change_root_before_exec(&mut command, root)?;
    }
    let child = command.spawn()?;
    // With the hook's ends of the pipe.
    drop(command);
    let exit = procfs::pidfd_of(child.id())?;
    Ok(Running {
        exit,
        output: Output::new(ours),
        child,
    })
}

/// A file with the state, since a hook need not read it.
fn input(state: &Value) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("state", MemfdFlags::CLOEXEC)?);
    file.write_all(state.to_string().as_bytes())?;
    file.rewind()?;
    Ok(file)
}

impl Running {
    /// Waits for the exit of the hook, which is killed at the deadline, with all that it has started.
    fn wait(&mut self, deadline: Instant, wanted: Option<BorrowedFd<'_>>) -> io::Result<End> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill();
                return Ok(End::TookTooLong);
            }
            let mut sources = vec![PollFd::new(self.exit.as_fd(), PollFlags::POLLIN)];
            // Its messages are the caller's.
            sources.extend(wanted.map(|wanted| PollFd::new(wanted, PollFlags::empty())));
            let output = self.output.pipe.as_ref().map(AsFd::as_fd);
            sources.extend(output.map(|pipe| PollFd::new(pipe, PollFlags::POLLIN)));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut sources, timeout) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let ready = |source: &PollFd<'_>| source.any().unwrap_or(false);
            let has_exited = ready(&sources[0]);
            let is_unwanted = wanted.is_some() && ready(&sources[1]);
            drop(sources);
            self.output.read(if has_exited { LEFT } else { 0 });
            if has_exited {
                return Ok(End::Exited(self.child.wait()?));
            }
            if is_unwanted {
                self.kill();
                return Ok(End::Unwanted);
            }
        }
    }

    /// Kills the hook and what is left of it: its session, and what is the caller's child by now.
    fn kill(&mut self) {
        let deadline = Instant::now() + KILL_TIMEOUT;
        let group = i32::try_from(self.child.id()).map(Pid::from_raw);
        // It leads its group and is not reaped, so the number is its own.
        let _ = group.map(|group| killpg(group, Signal::SIGKILL));
        kill_children(deadline);
        self.output.read(LEFT);
    }
}

/// Kills this process's children until none is left: what they have started becomes its child when they exit.
fn kill_children(deadline: Instant) {
    while Instant::now() < deadline {
        let left = procfs::children(std::process::id()).unwrap_or_default();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let Ok(pid) = i32::try_from(pid).map(Pid::from_raw) else {
                continue;
            };
            let _ = kill(pid, Signal::SIGKILL);
            // One in an uninterruptible sleep is left, as this process is about to end.
            wait_for(pid, deadline);
        }
    }
}

/// Waits for a child that was killed, and reaps it.
fn wait_for(pid: Pid, deadline: Instant) {
    if let Ok(exit) = procfs::pidfd_of(pid.as_raw().unsigned_abs()) {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(exit.as_fd(), PollFlags::POLLIN)], timeout);
    }
    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
}

/// What a hook writes, of which the end is kept.
struct Output {
    pipe: Option<OwnedFd>,
    tail: Vec<u8>,
}

impl Output {
    fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe: Some(pipe),
            tail: Vec::new(),
        }
    }

    /// Reads what there is, once, and up to about `more` bytes again.
    fn read(&mut self, more: usize) {
        let mut buffer = [0; 64 << 10];
        let mut total = 0;
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    self.tail.extend(&buffer[..length]);
                    let surplus = self.tail.len().saturating_sub(TAIL);
                    self.tail.drain(..surplus);
                    total += length;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => self.pipe = None,
            }
            if total >= more {
                return;
            }
        }
    }

    /// The end of it, in one line.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.collect::<Vec<_>>().join("; ");
        line.chars().filter(|one| !one.is_control()).collect()
    }
}
