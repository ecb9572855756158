//! A command as a container that has this program's own output: what some of the programs do with an
//! engine once they have made it.

use std::{error::Error, io, os::fd::AsFd as _, process::ExitCode};

use reaper_exec::{
    ContainerConfig, Engine, Executor,
    io::{StdioRequest, StreamTarget},
};
use reaper_spec::{ContainerId, Exit, ProcessSpec};
use reaper_state::StateStore;

/// A container for `command`, without an input and with this program's output.
///
/// # Errors
/// The id or the command is none.
pub fn container(
    id: &str,
    command: impl IntoIterator<Item = String>,
) -> Result<ContainerConfig, Box<dyn Error>> {
    let mut process = ProcessSpec::new(command, "/")?;
    process.env = vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    let mut container = ContainerConfig::new(ContainerId::new(id)?, process);
    let mut stdio = StdioRequest::default();
    stdio.streams.stdout = StreamTarget::Inherit;
    stdio.streams.stderr = StreamTarget::Inherit;
    stdio.attachments.inherited = [
        None,
        Some(io::stdout().as_fd().try_clone_to_owned()?),
        Some(io::stderr().as_fd().try_clone_to_owned()?),
    ];
    container.stdio = stdio;
    Ok(container)
}

/// Has both outputs of a container go to `uri`.
pub fn redirect(container: &mut ContainerConfig, uri: &str) {
    let target = StreamTarget::from_uri(uri);
    container.stdio = StdioRequest::default();
    container.stdio.streams.stdout = target.clone();
    container.stdio.streams.stderr = target;
}

/// Runs a container to its end, and deletes it.
///
/// # Errors
/// What the engine says. Of a program that cannot be executed nothing is left.
pub async fn to_its_end<E: Executor, S: StateStore + ?Sized + 'static>(
    engine: &Engine<E, S>,
    container: ContainerConfig,
) -> reaper_exec::engine::Result<Exit> {
    let id = container.id.clone();
    engine.create(container).await?;
    if let Err(error) = engine.start(&id).await {
        engine.delete(&id, true).await?;
        return Err(error);
    }
    let exit = engine.wait(&id).await?;
    engine.delete(&id, false).await?;
    Ok(exit)
}

/// Runs a container to its end, deletes it, and exits as it has.
///
/// # Errors
/// It cannot be run.
#[tokio::main(flavor = "current_thread")]
pub async fn run<E: Executor, S: StateStore + ?Sized + 'static>(
    engine: &Engine<E, S>,
    container: ContainerConfig,
) -> Result<ExitCode, Box<dyn Error>> {
    let exit = to_its_end(engine, container).await?;
    Ok(ExitCode::from(u8::try_from(exit.status.code())?))
}
