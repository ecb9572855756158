//! `overlay diff`, `overlay export` and `overlay commit`.

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
};

use reaper_overlay::{ApplyMode, Change, Overlays, Recovery, Scope};
use serde::Serialize;

use super::progress::Progress;
use crate::{
    args::{CommitArgs, DiffArgs, ExportArgs},
    commands::output::{print, print_json, remark},
    error::{Error, Result},
    settings::absolute,
    text::printable,
};

/// A change and what it did to a text, for programs.
#[derive(Debug, Serialize)]
struct WithContent<'a> {
    #[serde(flatten)]
    change: &'a Change,
    content: Option<String>,
}

pub(super) fn diff(
    overlays: &Overlays,
    scope: &Scope,
    args: &DiffArgs,
    out: &mut dyn Write,
) -> Result<()> {
    let mut progress = Progress::start("comparing", overlays, scope)?;
    let changes = overlays.diff(scope, &mut |seen| progress.show(&seen))?;
    drop(progress);
    match (args.output.json, args.content) {
        (true, false) => print_json(out, &changes),
        (true, true) => {
            let changes: Result<Vec<_>> = changes
                .iter()
                .map(|change| {
                    let content = change.text()?;
                    Ok(WithContent { change, content })
                })
                .collect();
            print_json(out, &changes?)
        }
        (false, content) => {
            let terminal = io::stdout().is_terminal();
            for change in &changes {
                print_change(out, change)?;
                if content && let Some(text) = change.text()? {
                    print_text(out, &text, terminal)?;
                }
            }
            Ok(())
        }
    }
}

fn print_change(out: &mut dyn Write, change: &Change) -> Result<()> {
    print(out, format_args!("{}\n", printable(&change.to_string())))
}

/// Prints what changed in a file. It is the workload's: on a terminal it must not give commands.
fn print_text(out: &mut dyn Write, text: &str, terminal: bool) -> Result<()> {
    if !terminal {
        return print(out, format_args!("{text}"));
    }
    let harmless = |c: char| {
        if c.is_control() && !"\n\t".contains(c) {
            '?'
        } else {
            c
        }
    };
    let text: String = text.chars().map(harmless).collect();
    print(out, format_args!("{text}"))
}

pub(super) fn export(
    overlays: &Overlays,
    scope: &Scope,
    args: &ExportArgs,
    out: &mut dyn Write,
) -> Result<()> {
    let Some(path) = &args.output else {
        if io::stdout().is_terminal() {
            return Err(Error::Option {
                option: "overlay export",
                problem: "an archive is nothing for a terminal: redirect it, or name a file by \
                          --output"
                    .to_owned(),
            });
        }
        return write(overlays, scope, out, "write to stdout");
    };
    // A name that does not exist must not cost the file that is there.
    overlays.disk_usage(scope, &mut |_| ())?;
    let operation = format!("write {}", path.display());
    let file = File::create(path).map_err(Error::io(operation.clone()))?;
    write(overlays, scope, file, &operation)
}

fn write(overlays: &Overlays, scope: &Scope, to: impl Write, operation: &str) -> Result<()> {
    let mut progress = Progress::start("archiving", overlays, scope)?;
    let to = BufWriter::new(to);
    let mut exported = overlays.export_diff(scope, to, &mut |seen| progress.show(&seen))?;
    drop(progress);
    exported.out.flush().map_err(Error::io(operation))?;
    for flaw in &exported.flaws {
        remark(&printable(&flaw.to_string()));
    }
    match exported.flaws.len() {
        0 => Ok(()),
        flaws => Err(Error::ArchiveFlawed(flaws)),
    }
}

pub(super) fn commit(
    overlays: &Overlays,
    scope: &Scope,
    args: &CommitArgs,
    out: &mut dyn Write,
) -> Result<()> {
    let mut paths = Vec::new();
    for path in &args.paths {
        paths.push(absolute("PATH", path)?);
    }
    if args.yes
        && let Some(recovery) = overlays.recover()?
    {
        remark(match recovery {
            Recovery::Cleared => "what an interrupted commit had left was removed",
            Recovery::Finished => "an interrupted commit was finished first",
            _ => "an interrupted commit was undone first",
        });
    }
    let planned = overlays.apply_to_host(scope, &paths, ApplyMode::DryRun, &mut |_| ())?;
    for path in &paths {
        if !planned.iter().any(|change| change.path.starts_with(path)) {
            return Err(unchanged(path));
        }
    }
    if args.yes {
        let total = planned.len().try_into().ok();
        let mut progress = Progress::new("changing", total);
        let mode = ApplyMode::Apply;
        overlays.apply_to_host(scope, &paths, mode, &mut |seen| progress.show(&seen))?;
    }
    for change in &planned {
        print_change(out, change)?;
    }
    if !args.yes {
        // For people; the exit code says nothing else.
        let _ = writeln!(
            io::stderr(),
            "reaper-runtime: nothing was changed yet: --yes makes these changes on this machine"
        );
    }
    Ok(())
}

fn unchanged(path: &Path) -> Error {
    Error::Option {
        option: "PATH",
        problem: format!(
            "{}: nothing changed there; see `reaper-runtime overlay diff`",
            path.display()
        ),
    }
}
