//! `list`.

use std::io::Write;

use reaper_exec::engine::Error as EngineError;
use reaper_state::{Error as StoreError, Record};

use super::{
    context::CommandContext,
    output::{print, print_json},
    table::print_table,
};
use crate::{
    args::{Format, ListArgs},
    colours::TextStyle,
    error::Result,
    oci::{self, State},
    outcome::ExitAction,
};

pub(crate) async fn run(
    call: &CommandContext,
    args: &ListArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let containers = &call.containers;
    let ids = containers.list().await?;
    if args.quiet {
        for id in ids {
            print(out, format_args!("{id}\n"))?;
        }
        return Ok(ExitAction::DONE);
    }
    let mut records = Vec::new();
    for id in ids {
        match containers.state(&id).await {
            Ok(record) => records.push(record),
            // It was deleted meanwhile.
            Err(EngineError::Store(StoreError::NotFound { .. })) => {}
            // One that cannot be read must not hide the others.
            Err(error) => tracing::warn!("container {id}: {error}"),
        }
    }
    match args.format {
        Format::Json => {
            print_json(out, &records.iter().map(State::of).collect::<Vec<_>>())?;
        }
        Format::Table => {
            let rows: Vec<_> = records.iter().map(row).collect();
            print_table(
                out,
                call.colours,
                ["ID", "PID", "STATUS", "EXIT", "BUNDLE", "CREATED"],
                &rows,
                look,
            )?;
        }
    }
    Ok(ExitAction::DONE)
}

fn look(column: usize, field: &str) -> TextStyle {
    match (column, field) {
        (2, "running") => TextStyle::Good,
        (2, "paused") => TextStyle::Warning,
        (2, "stopped") => TextStyle::Faint,
        (3, code) if code != "0" && code != "-" => TextStyle::Bad,
        _ => TextStyle::Plain,
    }
}

fn row(record: &Record) -> [String; 6] {
    [
        record.id.to_string(),
        oci::pid(record).map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        record.status.to_string(),
        record
            .exit
            .as_ref()
            .map_or_else(|| "-".to_owned(), |exit| exit.status.code().to_string()),
        record.bundle.display().to_string(),
        record.created.to_string(),
    ]
}
