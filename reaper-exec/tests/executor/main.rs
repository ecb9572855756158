//! The host executor with real monitors and processes.
//!
//! The test program is its own monitor, so it has a `main` of its own.

mod ends;
mod execs;
mod lives;
mod rig;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use reaper_exec::{io::StandardBinder, monitor};

fn main() -> ExitCode {
    monitor::run_if_asked(|| {
        monitor::Setup::new(reaper_overlay::HostRoot, StandardBinder::default())
    });
    let cases = [lives::CASES, execs::CASES, ends::CASES].concat();
    let trials = cases.into_iter().map(|(name, case)| {
        Trial::test(name, move || {
            rig::block_on(case);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
