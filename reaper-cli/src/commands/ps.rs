//! `ps`.

mod tool;

use std::{fs, io::Write};

use reaper_exec::{Executor, ProcessInfo};

use super::{
    context::CommandContext,
    names::find,
    output::{print, print_json},
    table::{or_dash, print_plain},
};
use crate::{
    args::{Format, PsArgs},
    container::{PodNames, pod_names},
    error::{Error, Result},
    outcome::ExitAction,
    text::printable,
};

pub(crate) async fn run(
    mut call: CommandContext,
    args: &PsArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    if args.format == Format::Json && !args.ps_options.is_empty() {
        return Err(Error::Option {
            option: "--format json",
            problem: "it prints pids only, whatever ps is told: leave out one of both".to_owned(),
        });
    }
    let id = &find(&mut call, &args.id).await?;
    let containers = &call.containers;
    let record = containers.state(id).await?;
    let entries = if record.status.is_alive() {
        containers.executor().pids(id).await?
    } else {
        Vec::new()
    };
    let pids: Vec<_> = entries.iter().map(|entry| entry.pid).collect();
    match args.format {
        Format::Json => print_json(out, &pids)?,
        Format::Table if !args.ps_options.is_empty() => {
            for line in tool::lines(&args.ps_options, &pids)? {
                print(out, format_args!("{}\n", printable(&line)))?;
            }
        }
        Format::Table => {
            let names = pod_names(&record);
            let rows: Vec<_> = entries
                .iter()
                .filter_map(|entry| row(entry, names.as_ref()))
                .collect();
            let mut head = vec!["PID", "PPID", "UID", "EXEC"];
            if names.is_some() {
                head.extend(["POD", "CONTAINER"]);
            }
            head.push("COMMAND");
            print_plain(out, call.colours, &head, &rows)?;
        }
    }
    Ok(ExitAction::DONE)
}

/// What /proc says of a process; `None` if it has ended meanwhile.
fn row(entry: &ProcessInfo, names: Option<&PodNames>) -> Option<Vec<String>> {
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
    let mut row = vec![
        entry.pid.to_string(),
        field("PPid")?,
        field("Uid")?,
        or_dash(entry.exec.as_ref().map(ToString::to_string)),
    ];
    if let Some(names) = names {
        row.extend([names.pod.clone(), or_dash(names.container.clone())]);
    }
    row.push(command);
    Some(row)
}
