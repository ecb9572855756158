//! The runtime of one container: its commands that are under way.

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::unistd::Pid;
use reaper_spec::{Exit, ProcessIdentity};
use reaper_state::ContainerDir;

use super::{
    command::Program,
    job::{Job, Task},
};
use crate::{
    before_exec::close_before_exec,
    monitor::support::oom_score::with_adjustment,
    protocol::{CreateContainer, Failure, RuntimeConfig},
    signal::Signal,
};

/// The folder of a runtime's state and of the files that its commands exchange with the monitor.
pub(crate) fn folder(dir: &ContainerDir) -> PathBuf {
    dir.path().join("runtime")
}

/// The file in a runtime's folder that is there while the runtime creates the container.
pub(super) fn creation_mark(folder: &Path) -> PathBuf {
    folder.join("creating")
}

/// The runtime of one container.
pub(crate) struct Runtime {
    pub(crate) program: Program,
    /// Init's program, for messages.
    pub(crate) init_program: String,
    folder: PathBuf,
    oom_score_adj: Option<i32>,
    pub(crate) jobs: Vec<Job>,
    /// The number of the next file that belongs to a job.
    next_file: u64,
    /// Children that exited before the command that created them: one may be its process.
    pub(crate) unclaimed: Vec<UnclaimedExit>,
    pub(crate) removal: Removal,
}

/// The exit of a child that was not known as a process of the container.
pub(crate) struct UnclaimedExit {
    pub(crate) pid: Pid,
    pub(crate) identity: ProcessIdentity,
    pub(crate) exit: Exit,
}

/// How far the runtime's `delete` is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Due,
    UnderWay,
    /// It has exited, and a failure was logged.
    Over,
}

impl Runtime {
    /// Makes the runtime's folder; no command is called. Commands are started with `oom_score_adj`,
    /// which the processes that they create inherit if the spec names none.
    pub(crate) fn new(
        runtime_config: RuntimeConfig,
        call: &CreateContainer,
        oom_score_adj: Option<i32>,
    ) -> Result<Self, Failure> {
        let folder = folder(&ContainerDir::new(&call.dir));
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::setup(format!("make {}", folder.display()), &error))?;
        Ok(Self {
            program: Program::new(runtime_config, &call.id, &folder),
            init_program: call.process.args.first().cloned().unwrap_or_default(),
            folder,
            oom_score_adj,
            jobs: Vec::new(),
            next_file: 0,
            unclaimed: Vec::new(),
            removal: Removal::Due,
        })
    }

    /// Records that the container is about to be created, for the cleanup after a killed monitor.
    pub(crate) fn note_creation(&self) -> Result<(), Failure> {
        let mark = creation_mark(&self.folder);
        std::fs::write(&mark, "")
            .map_err(|error| Failure::setup(format!("write {}", mark.display()), &error))
    }

    /// Records that it is created.
    pub(crate) fn note_created(&self) {
        // Where it cannot be removed, the runtime is only given up too early, should it hang.
        let _ = std::fs::remove_file(creation_mark(&self.folder));
    }

    /// A path for a job's file.
    pub(crate) fn file(&mut self, name: &str) -> PathBuf {
        self.next_file += 1;
        self.folder.join(format!("{name}-{}", self.next_file))
    }

    /// Starts a command with `arguments`, and with `/dev/null` where no streams are given.
    pub(crate) fn call(
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
        let child = close_before_exec(&mut command)
            .and_then(|()| with_adjustment(self.oom_score_adj, || command.spawn()))
            .map_err(|error| Failure::setup(self.program.step("start"), &error))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        self.jobs.push(Job { pid, log, task });
        Ok(())
    }

    /// The pids of the commands. They are not processes of the container.
    pub(crate) fn commands(&self) -> impl Iterator<Item = u32> {
        self.jobs
            .iter()
            .filter_map(|job| u32::try_from(job.pid.as_raw()).ok())
    }

    /// Keeps a signal for an exec'd process that a command is creating.
    pub(crate) fn queue_signal(&mut self, process: u64, signal: Signal) {
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

    /// Whether a command is under way that creates a process.
    pub(crate) fn is_creating(&self) -> bool {
        self.jobs.iter().any(|job| job.task.creates_process())
    }

    /// Keeps the exit of a child that may turn out to be a process of the container.
    pub(crate) fn keep_unclaimed(&mut self, pid: Pid, identity: ProcessIdentity, exit: Exit) {
        if self.is_creating() {
            self.unclaimed.push(UnclaimedExit {
                pid,
                identity,
                exit,
            });
        }
    }

    /// Deletes the container, once no other command is under way. Returns whether that is over.
    ///
    /// # Errors
    /// The command could not be started. It is not tried again.
    pub(crate) fn delete(&mut self) -> Result<bool, Failure> {
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

    /// Removes the folder, with what the runtime may have left in it.
    pub(crate) fn remove_files(&self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Reads the pid that a command has written.
pub(crate) fn read_pid(file: &Path) -> io::Result<Pid> {
    let text = std::fs::read_to_string(file)?;
    let number = text.trim().parse().ok().filter(|&number: &i32| number > 0);
    number
        .map(Pid::from_raw)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no pid")))
}
