//! What clients ask.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use reaper_spec::{ExecId, Status, Transition};

use crate::{
    channel::{self, Message},
    executor::{Created, Observation},
    monitor::{
        container::monitor::Monitor,
        support::{
            connection::ReplyTo,
            container_files::remove_runtime_files,
            request::parse,
            states::{ContainerState, ProcessState},
        },
    },
    protocol::{Answer, Call, Failure, StartMessage},
};

/// An answer now, or `None` where it comes deferred.
type Now = Result<Option<Answer>, Failure>;

impl Monitor {
    pub(crate) fn answer(&mut self, connection: u64, mut message: Message) {
        let request = match parse(&message) {
            Ok(request) => request,
            Err(response) => {
                let to = ReplyTo {
                    connection,
                    serial: response.serial,
                };
                self.reply(to, response.answer);
                return;
            }
        };
        let to = ReplyTo {
            connection,
            serial: request.envelope.serial,
        };
        let descriptors = std::mem::take(&mut message.descriptors);
        if let Some(answer) = self.call(request.call, descriptors, to).transpose() {
            self.reply(to, answer);
        }
    }

    fn call(&mut self, call: Call, descriptors: Vec<OwnedFd>, to: ReplyTo) -> Now {
        match call {
            Call::Create(_)
            | Call::Cleanup { .. }
            | Call::RemoveView(_)
            | Call::CollectGarbage(_) => Err(Failure::AlreadyExists),
            Call::Exec(call) => {
                self.check_exec_allowed()?;
                if self.find(Some(&call.exec)).is_ok() {
                    return Err(Failure::AlreadyExists);
                }
                self.make_exec(*call, descriptors, to).map(|()| None)
            }
            Call::Start { exec } => self.start(exec.as_ref(), &descriptors, to),
            Call::Kill { exec, signal, all } => self.kill(exec.as_ref(), signal, all, to),
            Call::Wait { exec } => {
                let process = self.find(exec.as_ref())?;
                match &process.state {
                    // The end of init is known when all that it started has ended.
                    ProcessState::Stopped(exit) if process.exec.is_some() => {
                        Ok(Some(Answer::Exit(exit.clone())))
                    }
                    _ => match &self.state {
                        ContainerState::Stopped(exit) => Ok(Some(Answer::Exit(exit.clone()))),
                        _ => {
                            self.find(exec.as_ref())?.waiters.push(to);
                            Ok(None)
                        }
                    },
                }
            }
            Call::Resize { exec, size } => {
                let process = self.find(exec.as_ref())?;
                if let Some(deferred) = &mut process.deferred {
                    deferred.resize(size);
                }
                let resized = process.stdio.resize(size);
                resized
                    .map_err(|error| Failure::setup("resize the terminal", &error))
                    .map(done)
            }
            Call::CloseStdin { exec } => {
                let process = self.find(exec.as_ref())?;
                process.stdio.close_stdin();
                if let Some(deferred) = &mut process.deferred {
                    deferred.close_stdin();
                }
                Ok(done(()))
            }
            Call::Pause if self.runtime.is_some() => {
                self.freeze_by_runtime(Transition::Pause, to).map(|()| None)
            }
            Call::Resume if self.runtime.is_some() => self
                .freeze_by_runtime(Transition::Resume, to)
                .map(|()| None),
            Call::Pause => self.pause(to).map(|()| None),
            Call::Resume => self.resume().map(done),
            Call::Pids => Ok(Some(Answer::Pids(self.pids()))),
            Call::Stats => Ok(Some(Answer::Stats(self.stats()))),
            Call::Observe => Ok(Some(Answer::Observed(self.observe()))),
            Call::Delete { exec } => self.delete(exec.as_ref(), to.connection).map(Some),
        }
    }

    fn check_exec_allowed(&self) -> Result<(), Failure> {
        let refused = |status| Err(Failure::status("exec in", status));
        match self.status() {
            // What init started is being ended, the new process would be, too.
            _ if !matches!(self.state, ContainerState::Live) => refused(Status::Stopped),
            Status::Running if self.freezing.is_some() => refused(Status::Paused),
            Status::Running => Ok(()),
            status => refused(status),
        }
    }

    fn start(&mut self, exec: Option<&ExecId>, streams: &[OwnedFd], to: ReplyTo) -> Now {
        if !matches!(self.state, ContainerState::Live) {
            return Err(Failure::status("start", Status::Stopped));
        }
        // A frozen process would not come through its start_socket, nor say so.
        if self.frozen || self.freezing.is_some() {
            return Err(Failure::status("start", Status::Paused));
        }
        let runtime_config = self.runtime.is_some();
        let process = self.find(exec)?;
        if runtime_config && matches!(process.state, ProcessState::Created) {
            if !streams.is_empty() {
                return Err(Failure::Unsupported {
                    operation: "give a process other streams when it starts".to_owned(),
                    reason: "the runtime has given it those of its creation".to_owned(),
                });
            }
            return self.start_by_runtime(exec, to).map(|()| None);
        }
        let (ProcessState::Created, Some(start_socket)) = (&process.state, &process.start_socket)
        else {
            let status = match process.state {
                // Somebody else's start is under way.
                ProcessState::Starting(_) => Status::Running,
                _ => process.state.status(),
            };
            return Err(Failure::status("start", status));
        };
        let streams: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
        match channel::send(start_socket.as_fd(), &StartMessage, &streams) {
            Ok(()) => {
                process.state.enter(ProcessState::Starting(to));
                Ok(None)
            }
            // It was killed at its start_socket; its end is about to be seen.
            Err(_) => Err(Failure::Ended),
        }
    }

    fn observe(&self) -> Observation {
        let exit = match &self.state {
            ContainerState::Stopped(exit) => Some(exit.clone()),
            _ => None,
        };
        Observation {
            status: self.status(),
            process: self.processes[0].identity(),
            monitor: Some(self.identity.clone()),
            exit,
        }
    }

    fn delete(&mut self, exec: Option<&ExecId>, client: u64) -> Result<Answer, Failure> {
        let Some(_) = exec else {
            let ContainerState::Stopped(exit) = &self.state else {
                return Err(Failure::status("delete", self.status()));
            };
            let exit = exit.clone();
            if self.deleted_for.is_none() {
                self.setup
                    .isolation
                    .forget(&self.view_request)
                    .map_err(|error| Failure::from_error("remove the filesystem view", &error))?;
                // The record first: with a plan a deletion that was cut short can be repeated.
                let _ = std::fs::remove_file(self.dir.exit_file());
                remove_runtime_files(&self.dir);
                self.deleted_for = Some(client);
            }
            return Ok(Answer::Deleted(Some(exit)));
        };
        let process = self.find(exec)?;
        let ProcessState::Stopped(exit) = &process.state else {
            let status = process.state.status();
            return Err(Failure::status("delete", status));
        };
        let exit = exit.clone();
        process.deleted = true;
        Ok(Answer::Deleted(Some(exit)))
    }

    pub(crate) fn created(&self, index: usize, mut warnings: Vec<String>) -> Answer {
        if self.processes[index].exec.is_none() {
            warnings.extend(self.view.warnings());
        }
        Answer::Created(Created {
            process: self.processes[index].identity(),
            monitor: Some(self.identity.clone()),
            warnings,
        })
    }
}

fn done(_: ()) -> Option<Answer> {
    Some(Answer::Done)
}
