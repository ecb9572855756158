//! SpawnArgs processes by a runtime.

use std::{ffi::OsString, os::fd::OwnedFd};

use crate::{
    io::{Attachments, Streams},
    monitor::{
        container::monitor::Monitor,
        oci_runtime::{
            job::{CreateOutputs, Task},
            process_json::document,
            runtime::Runtime,
        },
        process::state::{INIT, Process},
        support::{
            connection::ReplyTo,
            deferred_streams::{self as streams, DeferredExec},
            descriptors::sort,
            setup::Setup,
            states::ProcessState,
        },
    },
    protocol::{Attached, CreateCall, ExecCall, Failure},
};

/// Has the runtime create the container.
pub(crate) fn make_init(
    runtime: &mut Runtime,
    setup: &Setup,
    call: &CreateCall,
    streams: Streams,
    descriptors: Vec<OwnedFd>,
    reply_to: ReplyTo,
) -> Result<Process, Failure> {
    let attachments = refuse_preserved(call.attached, descriptors)?;
    let (mut stdio, pending) = streams::open(
        setup,
        &call.id,
        &call.namespace,
        &call.process,
        streams,
        attachments,
    )?;
    let made = CreateOutputs::new(runtime.file("pid"), runtime.file("console"), pending)?;
    let mut arguments = vec![OsString::from("create"), "--bundle".into()];
    arguments.push(runtime.program.bundle().into());
    arguments.extend(made.arguments());
    arguments.push(call.id.as_str().into());
    let task = Task::Create(made);
    runtime.call(arguments, streams::take(&mut *stdio), task)?;
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
        call: ExecCall,
        descriptors: Vec<OwnedFd>,
        reply_to: ReplyTo,
    ) -> Result<(), Failure> {
        let attachments = refuse_preserved(call.attached, descriptors)?;
        let whole = document(&call.process, call.document.as_deref()).map_err(|error| {
            let error = std::io::Error::from(error);
            Failure::setup("read the process", &error)
        })?;
        let (stdio, terminal) = streams::open(
            &self.setup,
            &self.id,
            &self.namespace,
            &call.process,
            call.streams,
            attachments,
        )?;
        let number = self.next_process;
        self.next_process += 1;
        let state = ProcessState::Creating {
            reply_to,
            // All is done but what the streams' peers have to say.
            warnings: Some(Vec::new()),
        };
        self.processes.push(Process {
            stdio,
            tied: call.tied,
            deferred: Some(DeferredExec {
                document: whole,
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
        let made = CreateOutputs::new(
            runtime.file("pid"),
            runtime.file("console"),
            deferred.terminal,
        )?;
        std::fs::write(&file, deferred.document.to_string())
            .map_err(|error| Failure::setup(format!("write {}", file.display()), &error))?;
        let mut arguments = vec![OsString::from("exec"), "--process".into()];
        arguments.extend([file.clone().into(), "--detach".into()]);
        arguments.extend(made.arguments());
        arguments.push(self.id.as_str().into());
        let task = Task::Exec {
            made,
            number: process.number,
            to,
            program: deferred.program,
            file,
            signals: Vec::new(),
        };
        runtime.call(arguments, streams::take(&mut *process.stdio), task)?;
        process.state.enter(ProcessState::Starting(to));
        Ok(())
    }
}

fn refuse_preserved(attached: Attached, descriptors: Vec<OwnedFd>) -> Result<Attachments, Failure> {
    let (attachments, preserved) = sort(attached, descriptors)?;
    if preserved.is_empty() {
        return Ok(attachments);
    }
    Err(Failure::Unsupported {
        operation: "preserve descriptors".to_owned(),
        reason: "the container is made by another runtime".to_owned(),
    })
}
