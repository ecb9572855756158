//! Containers that an OCI runtime makes: the monitor drives its command line.
//!
//! A runtime's `create` and `exec` leave a process behind and end. The monitor is a subreaper, so
//! that process becomes its child, as one that it had forked itself: it is waited for, its streams
//! are the binder's, its end is recorded. Each command is a job, a child whose end the monitor sees
//! as any other, and so a slow runtime keeps nobody waiting who did not ask for it.
//!
//! When init has ended, `delete --force` ends what is left and removes what the runtime keeps,
//! and only then the end is announced. Whoever buries a killed monitor does the same.

mod births;
mod bury;
mod calls;
mod console;
mod document;
mod image;
mod jobs;
mod program;
mod streams;
mod words;

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use reaper_spec::{Exit, ProcessIdentity};
use reaper_state::ContainerDir;

use self::program::Program;
pub(super) use self::{
    births::make_init,
    bury::bury,
    calls::killed_by,
    image::Image,
    jobs::{Job, Task},
    streams::Later,
};
use super::server::{OOM_SCORE_ADJ, OWN_OOM_SCORE_ADJ};
use crate::{
    protocol::{CreateCall, Driven, Failure},
    signal::Signal,
    sys,
};

/// Where a runtime keeps its state, and the monitor its files, in a container's folder.
fn folder(dir: &ContainerDir) -> PathBuf {
    dir.path().join("runtime")
}

/// The runtime of one container.
pub(super) struct Runtime {
    program: Program,
    /// What init runs, for messages.
    init_program: String,
    folder: PathBuf,
    oom_score_adj: Option<i32>,
    jobs: Vec<Job>,
    /// Numbers the files that belong to jobs.
    next_file: u64,
    /// Children that ended before the command which made them: one of them may be its process.
    early: Vec<Early>,
    removal: Removal,
}

/// A child that has ended, and that no process was known for.
struct Early {
    pid: Pid,
    identity: ProcessIdentity,
    exit: Exit,
}

/// Where the removal of what the runtime keeps is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Removal {
    Due,
    UnderWay,
    /// It was tried, and a failure logged.
    Over,
}

impl Runtime {
    /// The container's folder is made, and nothing called. A command is started with
    /// `oom_score_adj`: what it makes inherits that where the spec names none.
    pub(super) fn new(
        driven: Driven,
        call: &CreateCall,
        oom_score_adj: Option<i32>,
    ) -> Result<Self, Failure> {
        let folder = folder(&ContainerDir::at(&call.dir));
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::setup(format!("make {}", folder.display()), &error))?;
        Ok(Self {
            program: Program::new(driven, &call.id, &folder),
            init_program: call.process.args.first().cloned().unwrap_or_default(),
            folder,
            oom_score_adj,
            jobs: Vec::new(),
            next_file: 0,
            early: Vec::new(),
            removal: Removal::Due,
        })
    }

    /// A file for a job.
    fn file(&mut self, name: &str) -> PathBuf {
        self.next_file += 1;
        self.folder.join(format!("{name}-{}", self.next_file))
    }

    /// Starts a command with `arguments`, and with `/dev/null` where no streams are given.
    fn call(
        &mut self,
        arguments: Vec<OsString>,
        streams: Option<[OwnedFd; 3]>,
        task: Task,
    ) -> Result<(), Failure> {
        let log = self.file("log");
        let mut command = self.program.command(&log);
        command.args(arguments);
        if let Some([stdin, stdout, stderr]) = streams {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
        }
        let child = sys::close_before_exec(&mut command)
            .and_then(|()| with_adjustment(self.oom_score_adj, || command.spawn()))
            .map_err(|error| Failure::setup(self.program.step("start"), &error))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        self.jobs.push(Job { pid, log, task });
        Ok(())
    }

    /// Commands are neither killed with the container nor taken for its processes.
    pub(super) fn commands(&self) -> impl Iterator<Item = u32> {
        self.jobs
            .iter()
            .filter_map(|job| u32::try_from(job.pid.as_raw()).ok())
    }

    /// Keeps a signal for an exec'd process that is being made.
    fn send_later(&mut self, process: u64, signal: Signal) {
        for job in &mut self.jobs {
            if let Task::Exec {
                number, signals, ..
            } = &mut job.task
                && *number == process
            {
                signals.push(signal);
            }
        }
    }

    /// Whether a command is making a process.
    pub(super) fn is_making(&self) -> bool {
        self.jobs.iter().any(|job| job.task.makes())
    }

    /// Remembers the end of a child that may turn out to be a process of the container.
    pub(super) fn ended_early(&mut self, pid: Pid, identity: ProcessIdentity, exit: Exit) {
        if self.is_making() {
            self.early.push(Early {
                pid,
                identity,
                exit,
            });
        }
    }

    /// Whether nothing is left to be called. Starts the removal when it is the only thing left;
    /// what cannot be started is returned, and given up.
    pub(super) fn is_over(&mut self) -> Result<bool, Failure> {
        if !self.jobs.is_empty() {
            return Ok(false);
        }
        match self.removal {
            Removal::Over => Ok(true),
            Removal::UnderWay => Ok(false),
            Removal::Due => {
                self.removal = Removal::Over;
                self.call(self.program.removal(), None, Task::Remove)?;
                self.removal = Removal::UnderWay;
                Ok(false)
            }
        }
    }

    /// Removes the monitor's own files, and the runtime's if it has left some.
    pub(super) fn remove_files(&self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a program with another adjustment of the OOM killer than the monitor's own.
fn with_adjustment<T>(
    adjustment: Option<i32>,
    start: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let Some(adjustment) = adjustment else {
        return start();
    };
    // A lower value than the monitor was started with may be refused; the program then gets the
    // monitor's.
    let _ = std::fs::write(OWN_OOM_SCORE_ADJ, adjustment.to_string());
    let started = start();
    let _ = std::fs::write(OWN_OOM_SCORE_ADJ, OOM_SCORE_ADJ);
    started
}

/// Reads the pid that a command has written.
fn read_pid(file: &Path) -> io::Result<Pid> {
    let text = std::fs::read_to_string(file)?;
    let number = text.trim().parse().ok().filter(|&number: &i32| number > 0);
    number
        .map(Pid::from_raw)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no pid")))
}
