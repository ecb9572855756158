//! What clients ask of a container that a runtime has made.

use nix::sys::signal::Signal as NixSignal;
use reaper_spec::{ExecId, Exit, ExitStatus, Status, Timestamp, Transition};

use super::runtime_finished::NOT_EXECUTED;
use crate::{
    monitor::{
        container::monitor::Monitor,
        oci_runtime::job::Task,
        process::state::INIT,
        support::{
            connection::ReplyTo,
            signal::{killed_by, send_signal},
            states::ProcessState,
        },
    },
    protocol::{Answer, Failure},
    signal::Signal,
};

impl Monitor {
    /// Starts a process at its start_socket; the answer comes when the command has ended.
    pub(crate) fn start_by_runtime(
        &mut self,
        exec: Option<&ExecId>,
        to: ReplyTo,
    ) -> Result<(), Failure> {
        let number = self.find(exec)?.number;
        let index = self.index_of_number(number).ok_or(Failure::NotFound)?;
        if index > 0 {
            let started = self.start_exec(index, to);
            if started.is_err() {
                self.cancel_exec(index, ExitStatus::Exited { code: NOT_EXECUTED });
            }
            return started;
        }
        self.call_runtime("start", Task::Start(to))?;
        self.processes[0].state.enter(ProcessState::Starting(to));
        Ok(())
    }

    /// Signals a process. `None` where the answer comes when a command has ended.
    pub(crate) fn kill_by_runtime(
        &mut self,
        exec: Option<&ExecId>,
        signal: Signal,
        all: bool,
        to: ReplyTo,
    ) -> Result<Option<Answer>, Failure> {
        let process = self.find(exec)?;
        let number = process.number;
        if exec.is_some() {
            self.signal_exec(number, signal, all)?;
            return Ok(Some(Answer::Done));
        }
        if matches!(process.state, ProcessState::Creating { .. }) {
            return Err(Failure::status("kill", Status::Creating));
        }
        let options: &[&str] = if all { &["--all"] } else { &[] };
        let name = signal.number().to_string();
        let Some(runtime) = &mut self.runtime else {
            return Err(Failure::NotFound);
        };
        let mut arguments = runtime.program.on_container("kill", options);
        arguments.push(name.into());
        runtime.call(arguments, None, Task::Kill(to))?;
        Ok(None)
    }

    /// A runtime has no command for it.
    fn signal_exec(&mut self, number: u64, signal: Signal, all: bool) -> Result<(), Failure> {
        let index = self.index_of_number(number).ok_or(Failure::NotFound)?;
        let process = &mut self.processes[index];
        let Some(pid) = process.pid_number() else {
            if let ProcessState::Starting(_) = process.state {
                if let Some(runtime) = &mut self.runtime {
                    runtime.queue_signal(number, signal);
                }
            } else if signal.ends_by_default() {
                self.cancel_exec(index, killed_by(signal));
            }
            return Ok(());
        };
        // Nobody could name afterwards what it has started.
        if !all && signal != Signal::KILL {
            return send_signal(pid, signal);
        }
        let sent = self
            .tree(pid)
            .into_iter()
            .map(|pid| send_signal(pid, signal));
        sent.filter(|sent| !matches!(sent, Err(Failure::Ended)))
            .collect()
    }

    /// Ends an exec'd process that there is nothing of but its description.
    pub(crate) fn cancel_exec(&mut self, index: usize, status: ExitStatus) {
        self.processes[index].deferred = None;
        let at = Timestamp::now();
        self.exec_ended(index, Exit { status, at });
    }

    /// Freezes or thaws the container.
    pub(crate) fn freeze_by_runtime(
        &mut self,
        transition: Transition,
        to: ReplyTo,
    ) -> Result<(), Failure> {
        let status = self.status();
        let (name, task) = match transition {
            Transition::Pause => ("pause", Task::Pause(to)),
            _ => ("resume", Task::Resume(to)),
        };
        if status.after(transition).is_err() {
            return Err(Failure::status(name, status));
        }
        self.call_runtime(name, task)
    }

    fn call_runtime(&mut self, name: &str, task: Task) -> Result<(), Failure> {
        let Some(runtime) = &mut self.runtime else {
            return Err(Failure::NotFound);
        };
        let arguments = runtime.program.on_container(name, &[]);
        runtime.call(arguments, None, task)
    }

    /// Gives up a process that whoever asked for it does not want any more.
    pub(crate) fn kill_unwanted(&mut self, index: usize) {
        let process = &self.processes[index];
        let number = process.number;
        if self.runtime.is_none() || number == INIT {
            return process.signal(NixSignal::SIGKILL);
        }
        // It may have ended by itself.
        let _ = self.signal_exec(number, Signal::KILL, true);
    }
}
