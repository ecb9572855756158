//! Requests to a container that an OCI runtime has made.

use reaper_spec::{ExecId, Exit, ExitStatus, Resources, Status, Timestamp, Transition};

use super::runtime_finished::NOT_EXECUTED;
use crate::{
    monitor::{
        container::{backend::Reply, monitor::Monitor},
        oci_runtime::job::Task,
        process::state::INIT,
        support::{
            connection::ReplyTo,
            signal::{killed_by, send_signal, send_signals},
            states::ProcessState,
        },
    },
    protocol::{Failure, Response},
    signal::Signal,
};

impl Monitor {
    /// Starts a created process. The client is answered when the command has exited.
    pub(crate) fn start_by_runtime(
        &mut self,
        exec: Option<&ExecId>,
        to: ReplyTo,
    ) -> Result<(), Failure> {
        let number = self.find(exec)?.number;
        let index = self.index_of_number(number).ok_or(Failure::NotFound)?;
        if number == INIT {
            self.call_runtime("start", Task::Start(to))?;
            self.processes[index]
                .state
                .enter(ProcessState::Starting(to));
            return Ok(());
        }
        let started = self.start_exec(index, to);
        if started.is_err() {
            self.cancel_exec(index, ExitStatus::Exited { code: NOT_EXECUTED });
        }
        started
    }

    /// Signals a process: init by the runtime's `kill`, an exec, for which runtimes have no
    /// command, directly.
    pub(crate) fn kill_by_runtime(
        &mut self,
        exec: Option<&ExecId>,
        signal: Signal,
        all: bool,
        to: ReplyTo,
    ) -> Reply {
        let process = self.find(exec)?;
        let number = process.number;
        if exec.is_some() {
            self.signal_exec(number, signal, all)?;
            return Ok(Some(Response::Done));
        }
        if matches!(process.state, ProcessState::Creating { .. }) {
            return Err(Failure::status("kill", Status::Creating));
        }
        let options: &[&str] = if all { &["--all"] } else { &[] };
        let Some(runtime) = &mut self.runtime else {
            return Err(Failure::NotFound);
        };
        let mut arguments = runtime.program.on_container("kill", options);
        arguments.push(signal.number().to_string().into());
        runtime.call(arguments, None, Task::Kill { to, signal })?;
        Ok(None)
    }

    /// Answers the clients whose kill the runtime has not done in its time.
    pub(crate) fn give_up_kills(&mut self) {
        let jobs = self.runtime.iter().flat_map(|runtime| &runtime.jobs);
        let waiting = jobs.filter_map(|job| match job.task {
            Task::Kill { to, .. } => Some(to),
            _ => None,
        });
        for to in waiting.collect::<Vec<_>>() {
            self.reply(to, Ok(Response::Done));
        }
    }

    /// Signals an exec. One that is a description so far is cancelled by a signal that would end
    /// it; one that a command is making gets the signal when it exists.
    pub(crate) fn signal_exec(
        &mut self,
        number: u64,
        signal: Signal,
        all: bool,
    ) -> Result<(), Failure> {
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
        // SIGKILL goes to all that the exec has started: once the exec has exited, no client could
        // name the rest.
        if !all && signal != Signal::KILL {
            return send_signal(pid, signal);
        }
        send_signals(self.tree(pid), signal)
    }

    /// Reports the exit of an exec that no process was made for.
    pub(crate) fn cancel_exec(&mut self, index: usize, status: ExitStatus) {
        self.processes[index].deferred = None;
        let at = Timestamp::now();
        self.exec_exited(index, Exit::new(status, at));
    }

    /// Changes the limits of the container by the runtime's `update`.
    pub(crate) fn update_by_runtime(
        &mut self,
        resources: &Resources,
        to: ReplyTo,
    ) -> Result<(), Failure> {
        let Some(runtime) = &mut self.runtime else {
            return Err(Failure::NotFound);
        };
        let file = runtime.file("resources");
        let json = serde_json::to_vec(resources).map_err(std::io::Error::from);
        json.and_then(|json| std::fs::write(&file, json))
            .map_err(|error| Failure::setup(format!("write {}", file.display()), &error))?;
        let mut arguments = runtime.program.on_container("update", &["--resources"]);
        // In front of the container's id.
        arguments.insert(2, file.clone().into());
        runtime.call(arguments, None, Task::Update { to, file })
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
}
