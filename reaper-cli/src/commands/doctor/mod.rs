//! `doctor`: what this machine lacks, and how to put it right.

mod interfaces;
mod kernel_log;
mod leftovers;
mod machine;
mod trial;
mod upgrade;

use std::io::Write;

pub(crate) use self::trial::run_if_asked;
use super::{
    containerd,
    context::CommandContext,
    finding::{CheckResult, Level, print_findings},
    output::print_json,
};
use crate::{args::DoctorArgs, error::Result, outcome::ExitAction};

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
