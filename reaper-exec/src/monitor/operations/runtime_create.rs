//! Creating processes by an OCI runtime.
//!
//! Init is created and started by two commands, as the container is. For an exec, runtimes have one
//! command that does both, so `exec` keeps a description of the process and `start` calls the
//! runtime.

use std::{ffi::OsString, os::fd::OwnedFd};

use crate::{
    io::StdioFds,
    monitor::{
        container::{monitor::Monitor, new_container::NewContainer},
        oci_runtime::{
            job::{CreateOutputs, Task},
            process_json::document,
            runtime::Runtime,
        },
        process::state::{INIT, Process},
        support::{
            connection::ReplyTo,
            deferred_streams::{DeferredExec, PendingStreams, take_child},
            descriptors::sort,
            states::ProcessState,
        },
    },
    protocol::{Attached, ExecProcess, Failure},
};

/// Has the runtime create the container.
pub(crate) fn create_init(new: &mut NewContainer) -> Result<Process, Failure> {
    let Some(config) = new.call.runtime.clone() else {
        return Err(Failure::NotFound);
    };
    let inherited = new.pending.oom_score_adj;
    let adjustment = new.call.process.oom_score_adj.or(inherited);
    let runtime = Runtime::new(config, &new.call, inherited.and(adjustment))?;
    let runtime = new.runtime.insert(runtime);
    let descriptors = std::mem::take(&mut new.descriptors);
    let attachments = refuse_preserved(new.call.attached, descriptors)?;
    let streams = std::mem::take(&mut new.call.streams);
    let streams = PendingStreams::new(&new.call.process, streams, attachments);
    let (mut stdio, terminal) =
        streams.open(&new.pending.config, &new.call.id, &new.call.namespace)?;
    let outputs = CreateOutputs::new(runtime.file("pid"), runtime.file("console"), terminal)?;
    let mut arguments = vec![OsString::from("create"), "--bundle".into()];
    arguments.push(runtime.program.bundle().into());
    arguments.extend(outputs.arguments());
    arguments.push(new.call.id.as_str().into());
    runtime.note_creation()?;
    runtime.call(arguments, take_child(&mut *stdio), Task::Create(outputs))?;
    let reply_to = new.pending.reply_to;
    let state = ProcessState::Creating {
        reply_to,
        warnings: None,
    };
    Ok(Process {
        stdio,
        ..Process::new(INIT, None, state, reply_to.connection)
    })
}

impl Monitor {
    /// Keeps what an exec'd process needs until it is started.
    pub(crate) fn keep_exec(
        &mut self,
        call: ExecProcess,
        descriptors: Vec<OwnedFd>,
        reply_to: ReplyTo,
    ) -> Result<(), Failure> {
        let attachments = refuse_preserved(call.attached, descriptors)?;
        let document = document(&call.process, call.process_json.as_deref())
            .map_err(|error| Failure::setup("read the process", &error.into()))?;
        let streams = PendingStreams::new(&call.process, call.streams, attachments);
        let (stdio, terminal) = streams.open(&self.config, &self.id, &self.namespace)?;
        let number = self.number_process();
        let state = ProcessState::Creating {
            reply_to,
            // There is no child that reports; only the streams may not be ready.
            warnings: Some(Vec::new()),
        };
        self.processes.push(Process {
            stdio,
            kill_on_disconnect: call.kill_on_disconnect,
            deferred: Some(DeferredExec {
                document,
                program: call.process.args.first().cloned().unwrap_or_default(),
                terminal,
            }),
            ..Process::new(number, Some(call.exec), state, reply_to.connection)
        });
        self.finish_creation(number);
        Ok(())
    }

    /// Has the runtime make and start an exec'd process.
    pub(crate) fn start_exec(&mut self, index: usize, to: ReplyTo) -> Result<(), Failure> {
        let Some(runtime) = &mut self.runtime else {
            return Err(Failure::NotFound);
        };
        let process = &mut self.processes[index];
        let deferred = process.deferred.take().ok_or(Failure::NotFound)?;
        let file = runtime.file("process");
        let (pid_file, console) = (runtime.file("pid"), runtime.file("console"));
        let outputs = CreateOutputs::new(pid_file, console, deferred.terminal)?;
        std::fs::write(&file, deferred.document.to_string())
            .map_err(|error| Failure::setup(format!("write {}", file.display()), &error))?;
        let mut arguments = vec![OsString::from("exec"), "--process".into()];
        arguments.extend([file.clone().into(), "--detach".into()]);
        arguments.extend(outputs.arguments());
        arguments.push(self.id.as_str().into());
        let task = Task::Exec {
            outputs,
            number: process.number,
            to,
            program: deferred.program,
            file,
            signals: Vec::new(),
        };
        runtime.call(arguments, take_child(&mut *process.stdio), task)?;
        process.state.enter(ProcessState::Starting(to));
        Ok(())
    }
}

fn refuse_preserved(attached: Attached, descriptors: Vec<OwnedFd>) -> Result<StdioFds, Failure> {
    let (attachments, preserved) = sort(attached, descriptors)?;
    if preserved.is_empty() {
        return Ok(attachments);
    }
    Err(Failure::Unsupported {
        operation: "preserve descriptors".to_owned(),
        reason: "the container is made by another runtime".to_owned(),
    })
}
