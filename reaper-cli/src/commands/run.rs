//! `run`.

use std::{
    hash::{BuildHasher, RandomState},
    io::Write,
    os::fd::OwnedFd,
};

use reaper_exec::{ContainerConfig, Signal, Target, io::StdioRequest};
use reaper_spec::{Config, ContainerId, FileRestrictions, OverlayScope};

use super::{context::CommandContext, create::make, output::print};
use crate::{
    args::{LogFormat, RunArgs},
    container::{self, StdioSource},
    error::{Error, Result},
    foreground::run_foreground,
    host::ContainerEngine,
    logs::NewLog,
    outcome::ExitAction,
    pid_file::PidFile,
    process,
    settings::absolute,
    signals::{self, Signals},
    streams,
    terminal::{self, Console, Session},
};

pub(crate) async fn run(
    call: CommandContext,
    args: RunArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    // From here on a signal is for the container, also before it runs.
    let signals = if args.detach {
        None
    } else {
        Some(Signals::catch()?)
    };
    let mut new = describe(&call, &args)?;
    let log = if keeps_log(&call, &args, &new) {
        Some(NewLog::make(&call.config, &new.id)?)
    } else {
        None
    };
    let (stdio, console) = match &log {
        Some(log) => (log.apply(&mut new)?, None),
        None => streams(&args, &mut new)?,
    };
    let pid_file = args
        .bundle
        .pid_file
        .as_deref()
        .map(|path| absolute("--pid-file", path))
        .transpose()?;
    StdioSource {
        stdio,
        preserved: call.preserved,
        sockets: call.sockets,
        propagate_exit: pid_file.is_some(),
        session_keyring: args.bundle.no_new_keyring,
    }
    .apply(&mut new);
    // If this call is killed before the start, no other one would start the container.
    new.monitor.kill_unless_started = true;
    let containers = &call.containers;
    let record = make(containers, new, &call.config.policy.container_limits()).await?;
    let id = &record.id;

    let mut written = None;
    let started = async {
        if let (Some(path), Some(stand_in)) = (&pid_file, call.stand_in) {
            written = Some(PidFile::write(path, stand_in(&record)?)?);
        }
        let master = console.map(Console::receive).transpose()?;
        containers.start(id).await?;
        if signals.is_none() && args.id.is_none() {
            // A caller that does not get the name could not end what runs.
            print(out, format_args!("{id}\n"))?;
        }
        Ok(master)
    };
    let master = match started.await {
        Ok(master) => master,
        Err(error) => {
            if let Some(written) = written {
                written.undo();
            }
            return Err(undo(containers, id, error).await);
        }
    };
    if let Some(log) = log {
        log.keep();
    }
    let Some(mut signals) = signals else {
        return Ok(ExitAction::DONE);
    };
    let outcome = stay(containers, id, &mut signals, master).await;
    if !args.keep {
        containers.delete(id, true).await?;
    } else if outcome.is_err() {
        // It cannot be stayed with. It is kept as one that has stopped.
        if let Err(left) = containers.kill(id, Signal::KILL, true).await {
            tracing::warn!("kill container {id}: {left}");
        }
    }
    outcome
}

async fn stay(
    containers: &ContainerEngine,
    id: &ContainerId,
    signals: &mut Signals,
    master: Option<OwnedFd>,
) -> Result<ExitAction> {
    let session = master.map(Session::start).transpose()?;
    let ended = async { Ok(containers.wait(id).await?) };
    let target = Target::Init(id.clone());
    let executor = containers.executor();
    let (_, action) = run_foreground(executor, &target, signals, session, ended).await?;
    Ok(action)
}

/// Removes a container that could not be started, and returns why it couldn't.
async fn undo(containers: &ContainerEngine, id: &ContainerId, error: Error) -> Error {
    if let Err(left) = containers.delete(id, true).await {
        tracing::warn!("delete container {id}: {left}");
    }
    error
}

fn describe(call: &CommandContext, args: &RunArgs) -> Result<ContainerConfig> {
    if let Some(id) = &args.id {
        let bundle = args.bundle.bundle.as_deref().unwrap_or(".".as_ref());
        let mut new = container::of_bundle(&call.config, id.clone(), bundle)?;
        process::apply(&args.settings, &mut new.process)?;
        new.view.cwd.clone_from(&new.process.cwd);
        return Ok(new);
    }
    let id = match &args.name {
        Some(name) => name.clone(),
        None => made_up_id()?,
    };
    let config = with_overlay(&call.config, args.overlay.as_deref())?;
    let process = process::of_caller(&args.command, &args.settings)?;
    let dir = call.containers.root().container(&id).path().to_owned();
    let mut new = container::of_process(&config, id, &dir, process)?;
    if args.read_only {
        // The caller asks for it, whatever the policy says of a bundle's.
        new.view.restrictions = FileRestrictions {
            read_only: true,
            ..FileRestrictions::default()
        };
    }
    new.monitor.inherit = signals::inherited()?;
    Ok(new)
}

/// Whether the output is kept in a log: that of a detached command. A bundle gets
/// the caller's streams, as with runc, and so does what an engine runs.
fn keeps_log(call: &CommandContext, args: &RunArgs, new: &ContainerConfig) -> bool {
    let engine = args.bundle.pid_file.is_some()
        || args.bundle.console_socket.is_some()
        || call.log_format == LogFormat::Json;
    args.detach && args.id.is_none() && !new.process.terminal && !engine
}

/// Where the streams go: to this call's own, to an engine's console socket, or to a terminal
/// that this call serves.
fn streams(args: &RunArgs, new: &mut ContainerConfig) -> Result<(StdioRequest, Option<Console>)> {
    if !new.process.terminal {
        return Ok((streams::inherited()?, None));
    }
    process::set_term(&mut new.process);
    if let Some(socket) = &args.bundle.console_socket {
        return Ok((streams::engine_console(socket)?, None));
    }
    if args.detach {
        return Err(Error::NoTerminal);
    }
    new.process.console_size = terminal::own_size().or(new.process.console_size);
    let (console, theirs) = Console::new()?;
    Ok((streams::console(theirs), Some(console)))
}

fn with_overlay(config: &Config, scope: Option<&str>) -> Result<Config> {
    let mut config = config.clone();
    match scope {
        None => {}
        Some("none") => config.overlay.enabled = false,
        Some(scope) => {
            config.overlay.scope =
                scope
                    .parse::<OverlayScope>()
                    .map_err(|error| Error::Option {
                        option: "--overlay",
                        problem: format!("{error}; or none"),
                    })?;
            config.overlay.enabled = true;
        }
    }
    Ok(config)
}

fn made_up_id() -> Result<ContainerId> {
    let random = RandomState::new().hash_one(std::process::id());
    ContainerId::new(format!("run-{random:016x}")).map_err(|error| Error::Option {
        option: "--name",
        problem: error.to_string(),
    })
}
