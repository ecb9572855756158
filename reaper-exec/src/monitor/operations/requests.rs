//! The requests of clients.
//!
//! A request is answered at once, or by the event that it waits for: the child's report, the exit
//! of a process, the kernel's notice of a freeze. So no request holds up the loop, and the answers
//! of one client may come in another order than its requests.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use reaper_spec::{ConsoleSize, ExecId, Resources, Status};

use crate::{
    channel::Message,
    executor::{ContainerState, CreatedProcess},
    monitor::{
        container::{backend::Reply, monitor::Monitor},
        support::{
            connection::ReplyTo,
            request::parse,
            signal::signal_group,
            states::{MonitorState, ProcessState},
        },
    },
    protocol::{ExecProcess, Failure, Request, Response},
    signal::Signal,
};

impl Monitor {
    /// Answers the request in `message`, now or later.
    pub(crate) fn answer(&mut self, connection: u64, mut message: Message) {
        let request = match parse(&message) {
            Ok(request) => request,
            Err(response) => {
                let to = ReplyTo {
                    connection,
                    serial: response.serial,
                };
                self.reply(to, response.response);
                return;
            }
        };
        let to = ReplyTo {
            connection,
            serial: request.envelope.serial,
        };
        let descriptors = std::mem::take(&mut message.descriptors);
        if let Some(answer) = self.call(request.request, descriptors, to).transpose() {
            self.reply(to, answer);
        }
    }

    fn call(&mut self, call: Request, descriptors: Vec<OwnedFd>, to: ReplyTo) -> Reply {
        let backend = self.backend;
        match call {
            Request::Create(_)
            | Request::Cleanup { .. }
            | Request::RemoveView(_)
            | Request::CollectGarbage(_) => Err(Failure::AlreadyExists),
            Request::Exec(call) => self.exec(*call, descriptors, to),
            Request::Start { exec } => self.start(exec.as_ref(), &descriptors, to),
            Request::Kill {
                exec,
                signal,
                all,
                group,
            } => self.kill(exec.as_ref(), signal, all, group, to),
            Request::KillOnDisconnect => {
                let init = self.find(None)?;
                init.owner = to.connection;
                init.kill_on_disconnect = true;
                Ok(Some(Response::Done))
            }
            Request::Wait { exec } => self.wait(exec.as_ref(), to),
            Request::OomKills { seen } => self.wait_for_oom(seen, to),
            Request::Resize { exec, size } => self.resize(exec.as_ref(), size),
            Request::CloseStdin { exec } => self.close_stdin(exec.as_ref()),
            Request::Update(resources) => self.update(&resources, to),
            Request::Pause => backend.pause(self, to),
            Request::Resume => backend.resume(self, to),
            Request::Pids => Ok(Some(Response::Pids(backend.pids(self)))),
            Request::Stats => Ok(Some(Response::Stats(self.stats()))),
            Request::State => Ok(Some(Response::State(self.report_state()))),
            Request::Delete { exec } => self.delete(exec.as_ref(), to),
        }
    }

    fn exec(&mut self, call: ExecProcess, descriptors: Vec<OwnedFd>, to: ReplyTo) -> Reply {
        self.check_exec_allowed()?;
        if self.find(Some(&call.exec)).is_ok() {
            return Err(Failure::AlreadyExists);
        }
        let backend = self.backend;
        backend.exec(self, call, descriptors, to).map(|()| None)
    }

    fn check_exec_allowed(&self) -> Result<(), Failure> {
        let refused = |status| Err(Failure::status("exec in", status));
        match self.status() {
            // A new process would be killed with what init has started.
            _ if !matches!(self.state, MonitorState::Live) => refused(Status::Stopped),
            Status::Running if self.freezing.is_some() => refused(Status::Paused),
            Status::Running => Ok(()),
            status => refused(status),
        }
    }

    fn start(&mut self, exec: Option<&ExecId>, streams: &[OwnedFd], to: ReplyTo) -> Reply {
        if !matches!(self.state, MonitorState::Live) {
            return Err(Failure::status("start", Status::Stopped));
        }
        // A frozen process could neither execute its program nor report.
        if self.frozen || self.freezing.is_some() {
            return Err(Failure::status("start", Status::Paused));
        }
        match &self.find(exec)?.state {
            ProcessState::Created => {}
            // The start that another client asked for is under way.
            ProcessState::Starting(_) => return Err(Failure::status("start", Status::Running)),
            state => return Err(Failure::status("start", state.status())),
        }
        let streams: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
        let backend = self.backend;
        backend.start(self, exec, &streams, to)
    }

    fn kill(
        &mut self,
        exec: Option<&ExecId>,
        signal: Signal,
        all: bool,
        group: bool,
        to: ReplyTo,
    ) -> Reply {
        let (is_stopped, is_stopping) = match self.state {
            MonitorState::Live => (false, false),
            MonitorState::Stopping(_) => (false, true),
            MonitorState::Stopped(_) | MonitorState::Aborted => (true, false),
        };
        let process = self.find(exec)?;
        // The exit of init is not published before all that it has started has exited.
        let is_published = process.has_ended() && (exec.is_some() || !is_stopping);
        if is_stopped || is_published {
            return Err(Failure::Ended);
        }
        if is_stopping {
            // The request lost a race: all processes are being killed.
            return Ok(Some(Response::Done));
        }
        // Until it is reaped, the number of its group is not another's.
        if let Some(pid) = process
            .pid_number()
            .filter(|_| group && !process.has_ended())
            && let Some(sent) = signal_group(pid, signal)
        {
            return sent.map(|()| Some(Response::Done));
        }
        let backend = self.backend;
        let reply = backend.kill(self, exec, signal, all, to);
        if exec.is_none() && signal == Signal::KILL {
            self.thaw_killed();
            if reply.is_ok() {
                self.expect_exit();
            }
        }
        reply
    }

    fn wait(&mut self, exec: Option<&ExecId>, to: ReplyTo) -> Reply {
        let stopped = match &self.state {
            MonitorState::Stopped(exit) => Some(exit.clone()),
            _ => None,
        };
        let process = self.find(exec)?;
        let exit = match &process.state {
            ProcessState::Stopped(exit) if process.exec.is_some() => Some(exit.clone()),
            // The exit of init is published once all that it has started has exited.
            _ => stopped,
        };
        if exit.is_none() {
            process.waiters.push(to);
        }
        Ok(exit.map(Response::Exit))
    }

    fn update(&mut self, resources: &Resources, to: ReplyTo) -> Reply {
        if !matches!(self.state, MonitorState::Live) {
            return Err(Failure::status("update", Status::Stopped));
        }
        let backend = self.backend;
        backend.update(self, resources, to)
    }

    fn resize(&mut self, exec: Option<&ExecId>, size: ConsoleSize) -> Reply {
        let process = self.find(exec)?;
        if let Some(deferred) = &mut process.deferred {
            deferred.resize(size);
        }
        let resized = process.stdio.resize(size);
        resized
            .map(|()| Some(Response::Done))
            .map_err(|error| Failure::setup("resize the terminal", &error))
    }

    fn close_stdin(&mut self, exec: Option<&ExecId>) -> Reply {
        let process = self.find(exec)?;
        process.stdio.close_stdin();
        if let Some(deferred) = &mut process.deferred {
            deferred.close_stdin();
        }
        Ok(Some(Response::Done))
    }

    fn report_state(&self) -> ContainerState {
        let exit = match &self.state {
            MonitorState::Stopped(exit) => Some(exit.clone()),
            _ => None,
        };
        ContainerState {
            status: self.status(),
            process: self.processes[0].identity(),
            monitor: Some(self.identity.clone()),
            exit,
        }
    }

    fn delete(&mut self, exec: Option<&ExecId>, to: ReplyTo) -> Reply {
        if exec.is_none() {
            return self.delete_container(to);
        }
        let process = self.find(exec)?;
        let ProcessState::Stopped(exit) = &process.state else {
            return Err(Failure::status("delete", process.state.status()));
        };
        let exit = exit.clone();
        process.deleted = true;
        Ok(Some(Response::Deleted(Some(exit))))
    }

    fn delete_container(&mut self, to: ReplyTo) -> Reply {
        let exit = match &self.state {
            MonitorState::Stopped(exit) => exit.clone(),
            // Nothing is left of what could not be created.
            MonitorState::Aborted => return Ok(Some(Response::Deleted(None))),
            _ => return Err(Failure::status("delete", self.status())),
        };
        if self.deleted_for.is_some() {
            return Ok(Some(Response::Deleted(Some(exit))));
        }
        if self.deleting.is_empty() {
            self.config
                .isolation
                .remove(&self.view_request)
                .map_err(|error| Failure::from_error("remove the filesystem view", &error))?;
        }
        self.delete_with_hooks(to, exit);
        Ok(None)
    }

    /// The answer to a request that has created a process, which was refused something.
    pub(crate) fn created(&self, index: usize, refused: Vec<String>) -> Response {
        let warnings = match self.processes[index].exec {
            None => self.view.warnings(),
            Some(_) => Vec::new(),
        };
        Response::Created(CreatedProcess {
            process: self.processes[index].identity(),
            monitor: Some(self.identity.clone()),
            warnings,
            refused,
        })
    }
}
