//! `exec`.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
};

use reaper_exec::{
    ExecRequest, Executor, HostExecutor, MonitorConnection, Signal, Target, io::StdioRequest,
};
use reaper_spec::{ExecId, Exit, ProcessSpec, Status};
use reaper_state::Record;

use super::{context::CommandContext, names::find};
use crate::{
    args::ExecArgs,
    container,
    detached::{HelperRole, Report},
    error::{Error, Result},
    foreground::run_foreground,
    host::ContainerEngine,
    outcome::ExitAction,
    pid_file::PidFile,
    process,
    signals::Signals,
    stand_in::stay,
    streams,
    terminal::{self, Console, Session},
};

pub(crate) async fn run(
    mut call: CommandContext,
    args: ExecArgs,
    role: &HelperRole,
) -> Result<ExitAction> {
    let mut signals = Signals::catch()?;
    let id = &find(&mut call, &args.id).await?;
    let containers = &call.containers;
    let record = containers.state(id).await?;
    if record.status != Status::Running {
        return Err(Error::Status {
            operation: "run another process in",
            id: id.to_string(),
            status: record.status,
        });
    }
    let mut process = describe(&args, &record)?;
    process::add_capabilities(&args.cap, &mut process)?;
    if let Some(profile) = &args.apparmor {
        process.labels.apparmor_profile = Some(profile.clone());
    }
    if let Some(label) = &args.process_label {
        process.labels.selinux_label = Some(label.clone());
    }
    call.config.policy.apply_to_exec(&mut process)?;
    call.sockets.add_to(&mut process);
    let (stdio, console) = streams(&args, &mut process)?;
    let exec = made_up_id()?;
    let target = Target::Exec(id.clone(), exec.clone());
    let process_json = args
        .process
        .as_deref()
        .and_then(|path| fs::read_to_string(path).ok());
    let request = ExecRequest::new(process)
        .with_process_json(process_json)
        .with_stdio(stdio)
        .with_preserve_fds(call.preserved)
        .with_kill_on_disconnect(args.pid_file.is_some());
    let executor = containers.executor();
    let created = executor.exec(id, &exec, request).await?;
    for warning in created.warnings.iter().chain(&created.refused) {
        tracing::warn!("container {}: {warning}", id);
    }

    if let HelperRole::Helper(report) = role {
        let init = record.process.as_ref();
        // An OCI runtime makes it only when it is started.
        let made = created.process.as_ref().or(init);
        let pid = made.map_or(0, |process| process.pid);
        let host = HostExecutor::new(containers.root().clone());
        let process = host.connect(&target)?;
        return stay_detached(&process, pid, report, &mut signals).await;
    }
    let outcome = serve(containers, &target, &args, console, &mut signals).await;
    match outcome {
        Ok((exit, action)) => {
            executor.delete(&target).await?;
            // Who waits for the pid in the file waits for this process.
            match args.pid_file {
                Some(_) => Ok(ExitAction::ExitLike(exit.status)),
                None => Ok(action),
            }
        }
        Err(error) => {
            undo(containers, &target).await;
            Err(error)
        }
    }
}

async fn serve(
    containers: &ContainerEngine,
    target: &Target,
    args: &ExecArgs,
    console: Option<Console>,
    signals: &mut Signals,
) -> Result<(Exit, ExitAction)> {
    let executor = containers.executor();
    // Before the start: where it cannot be written the program must not have run.
    let path = args.pid_file.as_deref();
    let pid_file = path.map(|path| PidFile::write(path, std::process::id()));
    let pid_file = pid_file.transpose()?;
    let started = async {
        executor.start(target).await?;
        // Not before: an OCI runtime makes the terminal only now.
        console.map(Console::receive).transpose()
    };
    let master = match (started.await, pid_file) {
        (Err(error), Some(pid_file)) => {
            pid_file.undo();
            return Err(error);
        }
        (started, _) => started?,
    };
    let session = master.map(Session::start).transpose()?;
    let ended = async { Ok(executor.wait(target).await?) };
    run_foreground(executor, target, signals, session, ended).await
}

/// Stands for the process, of which `pid` is in the container's mounts as well.
///
/// From within the mounts only the connection to the monitor is used: an executor looks for files
/// by their paths.
async fn stay_detached(
    process: &MonitorConnection,
    pid: u32,
    report: &Report,
    signals: &mut Signals,
) -> Result<ExitAction> {
    let started = async {
        report.in_place(pid)?;
        process.start().await?;
        report.running()
    };
    if let Err(error) = started.await {
        let killed = process.kill(Signal::KILL).await;
        if killed.is_ok()
            && let Err(error) = process.wait().await
        {
            tracing::warn!("{error}");
        }
        delete(process).await;
        return Err(error);
    }
    let action = stay(process, signals).await;
    delete(process).await;
    Ok(action)
}

async fn delete(process: &MonitorConnection) {
    // Without the monitor there is nothing to delete.
    if let Err(error) = process.delete().await {
        tracing::debug!("{error}");
    }
}

/// Ends a process that this call cannot stay with, and forgets it.
async fn undo(containers: &ContainerEngine, target: &Target) {
    let executor = containers.executor();
    let killed = executor.kill(target, Signal::KILL, true).await;
    if killed.is_ok()
        && let Err(error) = executor.wait(target).await
    {
        tracing::warn!("{target}: {error}");
    }
    if let Err(error) = executor.delete(target).await {
        tracing::warn!("{target}: {error}");
    }
}

fn describe(args: &ExecArgs, record: &Record) -> Result<ProcessSpec> {
    let Some(path) = &args.process else {
        let init = container::init_process(record)?;
        return process::in_container(&args.command, &args.settings, init);
    };
    let mut process = ProcessSpec::load(path)?;
    if !args.cap.is_empty() {
        // They are added to the container's, which its monitor fills in only later.
        process.inherit(&container::init_process(record)?);
    }
    process::apply(&args.settings, &mut process)?;
    Ok(process)
}

/// As for `run`.
fn streams(args: &ExecArgs, process: &mut ProcessSpec) -> Result<(StdioRequest, Option<Console>)> {
    if !process.terminal {
        return Ok((streams::inherited()?, None));
    }
    process::set_term(process);
    if let Some(socket) = &args.console_socket {
        return Ok((streams::engine_console(socket)?, None));
    }
    if args.detach {
        return Err(Error::NoTerminal);
    }
    process.console_size = terminal::own_size().or(process.console_size);
    let (console, theirs) = Console::new()?;
    Ok((streams::console(theirs), Some(console)))
}

fn made_up_id() -> Result<ExecId> {
    let random = RandomState::new().hash_one(std::process::id());
    ExecId::new(format!("exec-{random:016x}")).map_err(|error| Error::Option {
        option: "exec",
        problem: error.to_string(),
    })
}
