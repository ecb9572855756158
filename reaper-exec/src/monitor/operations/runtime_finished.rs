//! What follows when a command of the OCI runtime has exited.
//!
//! A process that a command has created may exit before the command does. Exits of unknown children
//! are therefore kept while such a command is under way, and claimed by the pid that it has
//! written.

use nix::{sys::signal::Signal as NixSignal, unistd::Pid};
use reaper_spec::{Exit, ExitStatus, Timestamp};

use crate::{
    monitor::{
        container::monitor::Monitor,
        oci_runtime::{
            directory::check_inside,
            error_message::{self, last_log_error},
            job::{CreateOutputs, Job, Task},
            runtime::{Removal, UnclaimedExit, read_pid},
        },
        process::state::LiveProcess,
        support::{
            connection::ReplyTo,
            signal::send_signal,
            states::{MonitorState, ProcessState},
        },
    },
    procfs,
    protocol::{Failure, Response},
    signal::Signal,
};

/// The exit codes that shells report for a program that does not exist, and for one that cannot be
/// executed.
const NOT_FOUND: u8 = 127;
pub(crate) const NOT_EXECUTED: u8 = 126;

impl Monitor {
    /// Handles the exit of a child if it was a command of the runtime. Returns whether it was.
    pub(crate) fn command_exited(&mut self, pid: Pid, status: &ExitStatus) -> bool {
        let Some(runtime) = &mut self.runtime else {
            return false;
        };
        let Some(index) = runtime.jobs.iter().position(|job| job.pid == pid) else {
            return false;
        };
        let Job { log, task, .. } = runtime.jobs.swap_remove(index);
        let step = runtime.program.step(task.name());
        let message = last_log_error(&log, status);
        let result = match status {
            ExitStatus::Exited { code: 0 } => Ok(()),
            _ => Err(message),
        };
        self.task_finished(task, step, result);
        true
    }

    fn task_finished(&mut self, task: Task, step: String, result: Result<(), String>) {
        match task {
            Task::Create(outputs) => {
                let created = self
                    .process_failure(step, result, None)
                    .and_then(|()| self.attach_process(0, outputs));
                match created {
                    Ok(unclaimed) => self.created_by_runtime(unclaimed),
                    Err(failure) => self.creation_failed(0, failure),
                }
            }
            Task::Exec {
                outputs,
                number,
                to,
                program,
                file,
                signals,
            } => {
                let _ = std::fs::remove_file(file);
                let result = self.process_failure(step, result, Some(&program));
                self.exec_started(number, to, result.map(|()| outputs), &signals);
            }
            Task::Start(to) => match self.process_failure(step, result, None) {
                Ok(()) => self.init_started(to),
                Err(failure) => self.init_not_started(to, failure),
            },
            Task::Kill { to, signal } => self.killed_by_runtime(to, signal, step, result),
            Task::Pause(to) => self.frozen_by_runtime(true, to, step, result),
            Task::Resume(to) => self.frozen_by_runtime(false, to, step, result),
            Task::Update { to, file } => {
                let _ = std::fs::remove_file(file);
                let answer = match result {
                    Ok(()) => Ok(Response::Done),
                    Err(message) => Err(Failure::Setup {
                        step,
                        message,
                        errno: None,
                    }),
                };
                self.reply(to, answer);
            }
            Task::Remove => {
                if let Err(message) = result {
                    self.log(&format!("{step}: {message}"));
                }
                if let Some(runtime) = &mut self.runtime {
                    runtime.removal = Removal::Over;
                }
            }
        }
    }

    /// The result of a command that creates or starts a process of `program`, by default init's.
    fn process_failure(
        &self,
        step: String,
        result: Result<(), String>,
        program: Option<&str>,
    ) -> Result<(), Failure> {
        let init = self.runtime.as_ref().map(|runtime| &*runtime.init_program);
        let program = program.or(init).unwrap_or_default();
        result.map_err(|message| error_message::failure(step, message, program))
    }

    fn killed_by_runtime(
        &mut self,
        to: ReplyTo,
        signal: Signal,
        step: String,
        result: Result<(), String>,
    ) {
        let killed = match result {
            Err(message) if matches!(self.state, MonitorState::Live) => {
                if signal == Signal::KILL {
                    // It goes on, and its exit is not due.
                    self.kill_deadline = None;
                }
                Err(Failure::Setup {
                    step,
                    message,
                    errno: None,
                })
            }
            // A request that lost a race succeeds: all processes are being killed.
            _ => {
                if signal == Signal::KILL {
                    self.thaw_killed_by_runtime();
                }
                Ok(Response::Done)
            }
        };
        self.reply(to, killed);
    }

    /// Lets a paused container end whose runtime has killed it and not thawed it, as crun does with version 1.
    fn thaw_killed_by_runtime(&mut self) {
        // Otherwise the freezer may be another's: not every runtime makes a cgroup.
        if !self.frozen {
            return;
        }
        if let Err(error) = self.accounting_cgroups().thaw_v1() {
            self.log(&format!("thaw the killed container: {error}"));
        }
    }

    /// Attaches the process that a command has created to the one that the monitor keeps, and opens
    /// its terminal. Returns its exit, if it has exited already.
    fn attach_process(
        &mut self,
        index: usize,
        outputs: CreateOutputs,
    ) -> Result<Option<Exit>, Failure> {
        let Some(runtime) = &mut self.runtime else {
            return Err(Failure::NotFound);
        };
        let pid = read_pid(&outputs.pid_file)
            .map_err(|error| Failure::setup("read the runtime's pid file", &error))?;
        let _ = std::fs::remove_file(&outputs.pid_file);
        let unclaimed = runtime
            .unclaimed
            .iter()
            .position(|unclaimed| unclaimed.pid == pid);
        let (identity, exit) = match unclaimed.map(|at| runtime.unclaimed.swap_remove(at)) {
            Some(UnclaimedExit { identity, exit, .. }) => (identity, Some(exit)),
            None => {
                let identity = procfs::identify(pid.as_raw().unsigned_abs());
                (
                    identity.map_err(|error| Failure::setup("read /proc", &error))?,
                    None,
                )
            }
        };
        if !runtime.is_creating() {
            runtime.unclaimed.clear();
        }
        self.processes[index].live = Some(LiveProcess { pid, identity });
        if let Some((console, pending)) = outputs.terminal {
            let master = console
                .receive()
                .map_err(|error| Failure::setup("receive the terminal", &error))?;
            let bound = pending.bind(&self.config, &self.id, &self.namespace, Some(master))?;
            let process = &mut self.processes[index];
            process.stdio = bound;
            // The process got its end of the terminal from the runtime.
            drop(process.stdio.take_child());
        }
        if exit.is_none() {
            check_inside(pid.as_raw().unsigned_abs())?;
        }
        Ok(exit)
    }

    fn created_by_runtime(&mut self, unclaimed: Option<Exit>) {
        if let Some(runtime) = &self.runtime {
            runtime.note_created();
        }
        let process = &mut self.processes[0];
        let number = process.number;
        if let ProcessState::Creating { warnings, .. } = &mut process.state {
            *warnings = Some(Vec::new());
        }
        self.finish_creation(number);
        let pid = self.processes[0].live.as_ref().map(|live| live.pid);
        if let (Some(exit), Some(pid)) = (unclaimed, pid) {
            self.child_exited(pid, None, exit);
        }
    }

    fn init_started(&mut self, to: ReplyTo) {
        let process = &mut self.processes[0];
        if matches!(process.state, ProcessState::Starting(_)) {
            process.state.enter(ProcessState::Running);
        }
        if let Some(live) = &process.live {
            let identity = live.identity.clone();
            self.reply(to, Ok(Response::Started(identity)));
        }
    }

    /// Kills init, whose program was not executed. The client is answered after its exit, so no
    /// client can observe `running` after that answer.
    fn init_not_started(&mut self, to: ReplyTo, failure: Failure) {
        let process = &mut self.processes[0];
        process.failed_start.get_or_insert((to, failure));
        if !process.has_ended() {
            process.signal(NixSignal::SIGKILL);
        }
    }

    fn exec_started(
        &mut self,
        number: u64,
        to: ReplyTo,
        outputs: Result<CreateOutputs, Failure>,
        signals: &[Signal],
    ) {
        let Some(index) = self.index_of_number(number) else {
            return;
        };
        if self.processes[index].has_ended() {
            // The container was stopped at its deadline, before the command had exited.
            self.reply(to, Err(Failure::Ended));
            return;
        }
        match outputs.and_then(|outputs| self.attach_process(index, outputs)) {
            Ok(unclaimed) => {
                let process = &mut self.processes[index];
                process.state.enter(ProcessState::Running);
                for signal in signals {
                    if let (Some(pid), None) = (process.pid_number(), &unclaimed) {
                        // An error means that it has exited.
                        let _ = send_signal(pid, *signal);
                    }
                }
                if let Some(live) = &process.live {
                    let identity = live.identity.clone();
                    self.reply(to, Ok(Response::Started(identity)));
                }
                if let Some(exit) = unclaimed {
                    self.exec_exited(index, exit);
                }
            }
            Err(failure) => {
                let code = match &failure {
                    Failure::Execve { errno, .. } if *errno == libc::ENOENT => NOT_FOUND,
                    _ => NOT_EXECUTED,
                };
                self.start_failed(index, failure);
                let process = &self.processes[index];
                if process.live.is_some() {
                    // Its terminal could not be received.
                    process.signal(NixSignal::SIGKILL);
                } else {
                    let status = ExitStatus::Exited { code };
                    let at = Timestamp::now();
                    self.exec_exited(index, Exit::new(status, at));
                }
            }
        }
    }

    fn frozen_by_runtime(
        &mut self,
        frozen: bool,
        to: ReplyTo,
        step: String,
        result: Result<(), String>,
    ) {
        let answer = match result {
            _ if !matches!(self.state, MonitorState::Live) => Err(Failure::Ended),
            Ok(()) => {
                self.frozen = frozen;
                Ok(Response::Done)
            }
            Err(message) => Err(Failure::Setup {
                step,
                message,
                errno: None,
            }),
        };
        self.reply(to, answer);
    }
}
