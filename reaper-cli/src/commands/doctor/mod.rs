//! `doctor`: what this machine lacks, and how to put it right.

mod containerd;
mod finding;
mod interfaces;
mod kernel_log;
mod leftovers;
mod machine;
mod trial;
mod upgrade;

use std::io::Write;

use self::finding::{CheckResult, Level};
pub(crate) use self::trial::run_if_asked;
use super::{
    context::CommandContext,
    output::{print, print_json},
    table::print_table,
};
use crate::{
    args::DoctorArgs,
    colours::{Colours, TextStyle},
    error::Result,
    outcome::ExitAction,
    text::printable,
};

pub(crate) async fn run(
    call: &CommandContext,
    args: &DoctorArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let findings = match args.upgrade {
        true => upgrade::examine(call)?,
        false => examine(call, args).await?,
    };
    if args.json {
        print_json(out, &findings)?;
    } else {
        print_findings(out, call.colours, &findings)?;
    }
    let fatal = findings
        .iter()
        .any(|finding| finding.level == Level::Problem);
    Ok(ExitAction::Code(u8::from(fatal)))
}

async fn examine(call: &CommandContext, args: &DoctorArgs) -> Result<Vec<CheckResult>> {
    let mut findings = machine::examine(&call.config);
    findings.extend(containerd::examine());
    findings.extend(leftovers::examine(call, args.fix).await);
    findings.extend(if args.no_trial {
        trial::find_leftovers(call)
    } else {
        trial::examine(call).await?
    });
    Ok(findings)
}

fn print_findings(out: &mut dyn Write, colours: Colours, findings: &[CheckResult]) -> Result<()> {
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
