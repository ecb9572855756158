//! `events`.

use std::io::Write;

use reaper_exec::{Error as ExecutorError, Executor};
use reaper_spec::{ContainerId, Status};

use super::print;
use crate::{
    args::EventsArgs,
    error::{Error, Result},
    host::Containers,
    oci::Event,
    outcome::Outcome,
};

pub(crate) async fn run(
    containers: &Containers,
    args: &EventsArgs,
    out: &mut dyn Write,
) -> Result<Outcome> {
    let record = containers.state(&args.id).await?;
    if !matches!(
        record.status,
        Status::Created | Status::Running | Status::Paused
    ) {
        return Err(Error::Status {
            operation: "measure",
            id: args.id.to_string(),
            status: record.status,
        });
    }
    if args.stats {
        print_stats(containers, &args.id, out).await?;
        return Ok(Outcome::DONE);
    }
    let mut ended = std::pin::pin!(containers.wait(&args.id));
    loop {
        match print_stats(containers, &args.id, out).await {
            Err(Error::Executor(ExecutorError::NotFound(_) | ExecutorError::Ended(_))) => {}
            printed => printed?,
        }
        tokio::select! {
            exit = &mut ended => {
                exit?;
                return Ok(Outcome::DONE);
            }
            () = tokio::time::sleep(args.interval) => {}
        }
    }
}

async fn print_stats(containers: &Containers, id: &ContainerId, out: &mut dyn Write) -> Result<()> {
    let stats = containers.executor().stats(id).await?;
    let line =
        serde_json::to_string(&Event::stats(id.as_str(), &stats)).map_err(|error| Error::Io {
            operation: "write JSON".into(),
            source: error.into(),
        })?;
    print(out, format_args!("{line}\n"))
}
