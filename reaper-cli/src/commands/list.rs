//! `list`.

use std::{collections::BTreeMap, fs, io::Write, os::unix::fs::MetadataExt};

use reaper_state::Record;

use super::{
    context::CommandContext,
    names,
    output::{print, print_json},
    selection::known,
    table::{or_dash, print_table},
};
use crate::{
    args::{Format, ListArgs},
    colours::TextStyle,
    container::{PodNames, pod_names},
    error::Result,
    oci::{self, State},
    outcome::ExitAction,
    process::account_name,
    text::printable,
};

pub(crate) async fn run(
    call: &CommandContext,
    args: &ListArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let containers = &call.containers;
    if args.quiet || args.names {
        for id in containers.list().await? {
            print(out, format_args!("{id}\n"))?;
        }
        let pods = if args.names {
            names::all(call)?
        } else {
            Vec::new()
        };
        for name in pods {
            print(out, format_args!("{}\n", printable(&name)))?;
        }
        return Ok(ExitAction::DONE);
    }
    // One that cannot be read must not hide the others.
    let known = known(containers).await?;
    let records = &known.records;
    let mut accounts = BTreeMap::new();
    let owners: Vec<_> = records
        .iter()
        .map(|record| owner(call, record, &mut accounts))
        .collect();
    let listed = || records.iter().zip(&owners);
    match args.format {
        Format::Json => {
            let states: Vec<_> = listed()
                .map(|(record, owner)| State::of_owner(record, owner))
                .collect();
            print_json(out, &states)?;
        }
        Format::Table => {
            let mut head = vec![
                "ID",
                "PID",
                "STATUS",
                "BUNDLE",
                "CREATED",
                "OWNER",
                "EXIT",
                "POD",
                "CONTAINER",
            ];
            let names: Vec<_> = records.iter().map(pod_names).collect();
            let is_named = names.iter().any(Option::is_some);
            let mut rows: Vec<_> = listed()
                .zip(names)
                .map(|((record, owner), names)| row(record, owner, names))
                .collect();
            if !is_named {
                head.truncate(UNNAMED);
                rows.iter_mut().for_each(|row| row.truncate(UNNAMED));
            }
            print_table(out, call.colours, &head, &rows, look)?;
        }
    }
    known.complete()?;
    Ok(ExitAction::DONE)
}

/// The columns that are printed where no container is of a pod.
const UNNAMED: usize = 7;

/// The account that made a container, by what it has in the state root, or has made the root.
/// `accounts` are the names that are known already, by their uid.
fn owner(call: &CommandContext, record: &Record, accounts: &mut BTreeMap<u32, String>) -> String {
    let root = call.containers.root();
    let metadata =
        fs::metadata(root.container(&record.id).path()).or_else(|_| fs::metadata(root.path()));
    let Ok(metadata) = metadata else {
        return String::new();
    };
    let uid = metadata.uid();
    let name = accounts.entry(uid).or_insert_with(|| account_name(uid));
    name.clone()
}

fn look(column: usize, field: &str) -> TextStyle {
    match (column, field) {
        (2, "running") => TextStyle::Good,
        (2, "paused") => TextStyle::Warning,
        (2, "stopped") => TextStyle::Faint,
        (6, code) if code != "0" && code != "-" => TextStyle::Bad,
        _ => TextStyle::Plain,
    }
}

/// The first six columns are those of runc, which scripts read.
fn row(record: &Record, owner: &str, names: Option<PodNames>) -> Vec<String> {
    let (pod, container) = match names {
        Some(names) => (Some(names.pod), names.container),
        None => (None, None),
    };
    let code = record
        .exit
        .as_ref()
        .map(|exit| exit.status.code().to_string());
    vec![
        record.id.to_string(),
        oci::pid(record).unwrap_or(0).to_string(),
        record.status.to_string(),
        record.bundle.display().to_string(),
        record.created.to_string(),
        owner.to_owned(),
        or_dash(code),
        or_dash(pod),
        or_dash(container),
    ]
}
