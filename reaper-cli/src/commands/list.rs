//! `list`.

use std::io::Write;

use reaper_state::Record;

use super::{
    context::CommandContext,
    output::{print, print_json},
    selection::known,
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
    if args.quiet {
        for id in containers.list().await? {
            print(out, format_args!("{id}\n"))?;
        }
        return Ok(ExitAction::DONE);
    }
    // One that cannot be read must not hide the others.
    let known = known(containers).await?;
    let records = &known.records;
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
    known.complete()?;
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
