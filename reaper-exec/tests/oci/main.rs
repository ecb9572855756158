//! The executor that drives an OCI runtime, with runc and with crun, and real containers.
//!
//! The test program is its own monitor, so it has a `main` of its own.

mod bundle;
mod contract;
mod ends;
#[path = "../common/frozen.rs"]
mod frozen;
mod lives;
#[path = "../common/output.rs"]
mod output;
mod paths;
mod rig;
mod terminals;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use reaper_exec::{io::StandardBinder, monitor};
use reaper_overlay::HostFilesystem;

fn main() -> ExitCode {
    monitor::run_if_monitor(|| {
        monitor::MonitorConfig::new(HostFilesystem, StandardBinder::default())
    });
    let mut trials = Vec::new();
    for runtime in ["runc", "crun"] {
        for &(name, case) in [
            contract::CASES,
            lives::CASES,
            ends::CASES,
            terminals::CASES,
            paths::CASES,
        ]
        .into_iter()
        .flatten()
        {
            trials.push(Trial::test(format!("{runtime}::{name}"), move || {
                rig::run(runtime, case);
                Ok(())
            }));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
