//! `doctor`: what this machine lacks, and how to put it right.

mod containerd;
mod interfaces;
mod kernel_log;
mod leftovers;
mod machine;
mod syscalls;
mod trial;

use std::io::Write;

use serde::Serialize;

pub(crate) use self::trial::run_if_asked;
use super::{
    context::Call,
    output::{print, print_json},
    table::{print_table, printable},
};
use crate::{
    args::DoctorArgs,
    colours::{Colours, Look},
    error::Result,
    outcome::Outcome,
};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Good,
    /// Containers run, with less than one might want.
    Warning,
    /// Containers do not run.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    about: &'static str,
    found: String,
    /// What to do about it. Nothing where all is well.
    fix: Option<String>,
    /// What was done for it, where that was several steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<trial::Step>,
}

impl Finding {
    fn good(about: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Good,
            about,
            found: found.into(),
            fix: None,
            steps: Vec::new(),
        }
    }

    fn warning(about: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            about,
            found: found.into(),
            fix: Some(fix.into()),
            steps: Vec::new(),
        }
    }

    fn problem(about: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            level: Level::Problem,
            ..Self::warning(about, found, fix)
        }
    }
}

pub(crate) async fn run(call: &Call, args: &DoctorArgs, out: &mut dyn Write) -> Result<Outcome> {
    let mut findings = machine::examine(&call.config);
    findings.extend(containerd::examine());
    findings.extend(leftovers::examine(call).await);
    findings.extend(if args.no_trial {
        trial::find_leftovers(call)
    } else {
        trial::examine(call).await?
    });
    if args.json {
        print_json(out, &findings)?;
    } else {
        print_findings(out, call.colours, &findings)?;
    }
    let fatal = findings
        .iter()
        .any(|finding| finding.level == Level::Problem);
    Ok(Outcome::Code(u8::from(fatal)))
}

fn print_findings(out: &mut dyn Write, colours: Colours, findings: &[Finding]) -> Result<()> {
    let row = |finding: &Finding| {
        let level = match finding.level {
            Level::Good => "ok",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        let found = printable(&finding.found);
        [level.to_owned(), finding.about.to_owned(), found]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    print_table(out, colours, ["", "WHAT", "FOUND"], &rows, look)?;
    for finding in findings {
        if let Some(fix) = &finding.fix {
            print(
                out,
                format_args!(
                    "\n{}: {}\n",
                    colours.paint(Look::Heading, finding.about),
                    printable(fix)
                ),
            )?;
        }
    }
    Ok(())
}

fn look(column: usize, field: &str) -> Look {
    match (column, field) {
        (0, "ok") => Look::Good,
        (0, "warning") => Look::Warning,
        (0, "PROBLEM") => Look::Bad,
        _ => Look::Plain,
    }
}
