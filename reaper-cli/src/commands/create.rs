//! `create`.

use reaper_exec::{ContainerConfig, io::StdioRequest};
use reaper_spec::ContainerLimit;
use reaper_state::Record;

use super::context::CommandContext;
use crate::{
    args::{CreateArgs, LogFormat},
    container::{self, StdioSource},
    error::{Error, Result},
    host::ContainerEngine,
    outcome::ExitAction,
    pid_file::PidFile,
    settings::absolute,
    streams,
};

pub(crate) async fn run(call: CommandContext, args: CreateArgs) -> Result<ExitAction> {
    let options = args.bundle;
    let bundle = options.bundle.unwrap_or_else(|| ".".into());
    let mut new = container::of_bundle(&call.config, args.id, &bundle)?;
    let engine = options.pid_file.is_some()
        || options.console_socket.is_some()
        || call.log_format == LogFormat::Json
        || !call.containers.executor().defers_streams();
    let stdio = match (&options.console_socket, new.process.terminal) {
        (Some(socket), true) => streams::engine_console(socket)?,
        (None, true) => return Err(Error::NoTerminal),
        (_, false) if engine => streams::inherited()?,
        // Those of `start` will do: a caller that reads this call's output to its end must not
        // wait for the program's.
        (_, false) => StdioRequest::default(),
    };
    if !engine {
        container::defer_streams(&mut new);
    }
    let propagate_exit = options.pid_file.is_some();
    StdioSource {
        stdio,
        preserved: call.preserved,
        sockets: call.sockets,
        propagate_exit,
        session_keyring: options.no_new_keyring,
    }
    .apply(&mut new);
    let pid_file = options
        .pid_file
        .map(|path| absolute("--pid-file", &path))
        .transpose()?;
    let limits = call.config.policy.container_limits();
    let record = make(&call.containers, new, &limits).await?;
    if let (Some(path), Some(stand_in)) = (pid_file, call.stand_in)
        && let Err(error) = stand_in(&record).and_then(|pid| PidFile::write(&path, pid))
    {
        call.containers.delete(&record.id, true).await?;
        return Err(error);
    }
    Ok(ExitAction::DONE)
}

/// Makes a container, and logs what could not be had.
pub(crate) async fn make(
    containers: &ContainerEngine,
    new: ContainerConfig,
    limits: &[ContainerLimit],
) -> Result<Record> {
    let (record, warnings) = containers.create_within(new, limits).await?;
    for warning in warnings {
        // Nothing to interrupt a program's own output for.
        tracing::info!("container {}: {warning}", record.id);
    }
    Ok(record)
}
