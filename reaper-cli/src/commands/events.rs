//! `events`.

use std::io::Write;

use reaper_exec::{
    Error as ExecutorError, Executor,
    engine::{self, EventKind},
};
use reaper_spec::{ContainerId, Status};

use super::{context::CommandContext, names::find, output::print};
use crate::{
    args::EventsArgs,
    error::{Error, Result},
    host::ContainerEngine,
    oci::{Event, Life},
    outcome::ExitAction,
};

pub(crate) async fn run(
    mut call: CommandContext,
    args: &EventsArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let Some(name) = &args.id else {
        return follow(&call.containers, args.json, out).await;
    };
    let id = &find(&mut call, name).await?;
    let containers = &call.containers;
    let record = containers.state(id).await?;
    if !matches!(
        record.status,
        Status::Created | Status::Running | Status::Paused
    ) {
        return Err(Error::Status {
            operation: "measure",
            id: id.to_string(),
            status: record.status,
        });
    }
    if args.stats {
        print_stats(containers, id, out).await?;
        return Ok(ExitAction::DONE);
    }
    let mut ended = std::pin::pin!(containers.wait(id));
    loop {
        match print_stats(containers, id, out).await {
            Err(Error::Executor(ExecutorError::NotFound(_) | ExecutorError::Ended(_))) => {}
            printed => printed?,
        }
        tokio::select! {
            exit = &mut ended => {
                exit?;
                return Ok(ExitAction::DONE);
            }
            () = tokio::time::sleep(args.interval) => {}
        }
    }
}

/// Prints the containers' events until writing fails, as it does when the reader closes the pipe.
async fn follow(
    containers: &ContainerEngine,
    json: bool,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let mut watch = containers.watch().await?;
    loop {
        let event = watch.next().await?;
        if json {
            print_line(out, &Life::of(&event))?;
        } else {
            let engine::Event { id, at, change, .. } = &event;
            let word = change.as_str();
            match change {
                EventKind::Stopped(exit) => {
                    print(
                        out,
                        format_args!("{at} {id} {word} {}\n", exit.status.code()),
                    )?;
                }
                _ => print(out, format_args!("{at} {id} {word}\n"))?,
            }
        }
    }
}

async fn print_stats(
    containers: &ContainerEngine,
    id: &ContainerId,
    out: &mut dyn Write,
) -> Result<()> {
    let stats = containers.executor().stats(id).await?;
    print_line(out, &Event::stats(id.as_str(), &stats))
}

/// Prints a value as JSON on one line.
fn print_line(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<()> {
    let line = serde_json::to_string(value).map_err(|error| Error::Io {
        operation: "write JSON".into(),
        source: error.into(),
    })?;
    print(out, format_args!("{line}\n"))
}
