//! `ps`.

use std::{fs, io::Write};

use reaper_exec::{Executor, ProcessInfo};

use super::{context::CommandContext, output::print_json, table::print_plain};
use crate::{
    args::{Format, PsArgs},
    error::Result,
    outcome::ExitAction,
};

pub(crate) async fn run(
    call: &CommandContext,
    args: &PsArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let containers = &call.containers;
    let record = containers.state(&args.id).await?;
    let entries = if record.status.is_alive() {
        containers.executor().pids(&args.id).await?
    } else {
        Vec::new()
    };
    match args.format {
        Format::Json => {
            print_json(
                out,
                &entries.iter().map(|entry| entry.pid).collect::<Vec<_>>(),
            )?;
        }
        Format::Table => {
            let rows: Vec<_> = entries.iter().filter_map(row).collect();
            let head = ["PID", "PPID", "UID", "EXEC", "COMMAND"];
            print_plain(out, call.colours, head, &rows)?;
        }
    }
    Ok(ExitAction::DONE)
}

/// What /proc says of a process; `None` if it has ended meanwhile.
fn row(entry: &ProcessInfo) -> Option<[String; 5]> {
    let folder = format!("/proc/{}", entry.pid);
    let status = fs::read_to_string(format!("{folder}/status")).ok()?;
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    let arguments = fs::read(format!("{folder}/cmdline")).unwrap_or_default();
    let mut command = String::from_utf8_lossy(&arguments)
        .replace('\0', " ")
        .trim_end()
        .to_owned();
    if command.is_empty() {
        command = format!("[{}]", field("Name")?);
    }
    // A process may give itself any name: it must not write to the terminal.
    let command = command
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let exec = entry
        .exec
        .as_ref()
        .map_or_else(|| "-".to_owned(), ToString::to_string);
    Some([
        entry.pid.to_string(),
        field("PPid")?,
        field("Uid")?,
        exec,
        command,
    ])
}
