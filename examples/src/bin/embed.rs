//! Runs a command as a container from within a program, and passes on what it says while it says
//! it: `embed sh -c 'echo one; echo two >&2; exit 3'`, as root.
//!
//! A monitor watches the command. It is this program executed again, so the container would
//! outlive a crash of this one, and its exit code would not be lost.

use std::{
    error::Error,
    io::{Write as _, stderr, stdout},
    process::ExitCode,
    sync::Arc,
};

use reaper_exec::{
    ContainerConfig, Engine, HostExecutor,
    io::{Capture, CaptureBinder, OutputStream, StandardBinder},
    monitor,
};
use reaper_overlay::HostFilesystem;
use reaper_spec::{ContainerId, ProcessSpec};
use reaper_state::{FileStore, StateRoot};

fn main() -> ExitCode {
    // First of all, before any thread: the monitor never comes past this line.
    monitor::run_if_monitor(|| {
        monitor::MonitorConfig::new(
            HostFilesystem,
            CaptureBinder::with_fallback(StandardBinder::new()),
        )
    });
    run(std::env::args().skip(1).collect()).unwrap_or_else(|error| {
        eprintln!("embed: {error}");
        ExitCode::FAILURE
    })
}

#[tokio::main(flavor = "current_thread")]
async fn run(command: Vec<String>) -> Result<ExitCode, Box<dyn Error>> {
    // A program of some importance has a fixed root, `/run/NAME`, and finds there after a crash
    // what it had started.
    let folder = tempfile::tempdir()?;
    let root = StateRoot::new(folder.path());
    let store = Arc::new(FileStore::new(root.clone()));
    let engine = Engine::new(HostExecutor::new(root.clone()), store, root);

    let mut process = ProcessSpec::new(command, "/")?;
    process
        .env
        .push("PATH=/usr/sbin:/usr/bin:/sbin:/bin".into());
    let id = ContainerId::new("embedded")?;
    let mut container = ContainerConfig::new(id.clone(), process);
    let (stdio, mut output) = Capture::new()?;
    container.stdio = stdio;

    // Whatever the process may not do, or lacks, is an error of `create`; a program that does not
    // exist one of `start`.
    engine.create(container).await?;
    if let Err(error) = engine.start(&id).await {
        engine.delete(&id, true).await?;
        return Err(error.into());
    }
    while let Some(chunk) = output.next().await? {
        match chunk.output {
            OutputStream::Stdout => stdout().write_all(&chunk.bytes)?,
            OutputStream::Stderr => stderr().write_all(&chunk.bytes)?,
        }
    }
    let exit = engine.wait(&id).await?;
    engine.delete(&id, false).await?;
    println!("exit code {}", exit.status.code());
    Ok(ExitCode::from(u8::try_from(exit.status.code())?))
}
