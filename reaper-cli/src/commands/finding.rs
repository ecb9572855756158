//! What `doctor` and `node status` report: one finding for each thing that they look at.

use std::io::Write;

use serde::Serialize;

use super::{output::print, table::print_table};
use crate::{
    colours::{Colours, TextStyle},
    error::Result,
    text::printable,
};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Good,
    /// Containers run, with less than one might want.
    Warning,
    /// Containers do not run.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct CheckResult {
    pub(super) level: Level,
    pub(super) about: &'static str,
    pub(super) found: String,
    /// What to do about it. Nothing where all is well.
    pub(super) fix: Option<String>,
    /// What was done for it, where that was several steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) steps: Vec<Step>,
}

impl CheckResult {
    pub(super) fn good(about: &'static str, found: impl Into<String>) -> Self {
        Self {
            level: Level::Good,
            about,
            found: found.into(),
            fix: None,
            steps: Vec::new(),
        }
    }

    pub(super) fn warning(
        about: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Warning,
            about,
            found: found.into(),
            fix: Some(fix.into()),
            steps: Vec::new(),
        }
    }

    pub(super) fn problem(
        about: &'static str,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Problem,
            ..Self::warning(about, found, fix)
        }
    }
}

/// One step that was done, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) step: &'static str,
    pub(super) milliseconds: u64,
    /// Why it failed.
    pub(super) error: Option<String>,
    pub(super) errno: Option<i32>,
}

/// Prints all as a table, and below it what to do.
pub(super) fn print_findings(
    out: &mut dyn Write,
    colours: Colours,
    findings: &[CheckResult],
) -> Result<()> {
    let row = |finding: &CheckResult| {
        let level = match finding.level {
            Level::Good => "ok",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        [
            level.to_owned(),
            finding.about.to_owned(),
            finding.found.clone(),
        ]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    print_table(out, colours, &["", "WHAT", "FOUND"], &rows, look)?;
    for finding in findings {
        if let Some(fix) = &finding.fix {
            print(
                out,
                format_args!(
                    "\n{}: {}\n",
                    colours.paint(TextStyle::Heading, finding.about),
                    printable(fix)
                ),
            )?;
        }
    }
    Ok(())
}

fn look(column: usize, field: &str) -> TextStyle {
    match (column, field) {
        (0, "ok") => TextStyle::Good,
        (0, "warning") => TextStyle::Warning,
        (0, "PROBLEM") => TextStyle::Bad,
        _ => TextStyle::Plain,
    }
}
