//! The host executor with real monitors and processes.
//!
//! The test program is its own monitor, so it has a `main` of its own.

mod capture;
mod clients;
mod contract;
mod crashes;
mod embedding;
mod ends;
mod execs;
mod fork_bomb;
#[path = "../common/frozen.rs"]
mod frozen;
mod hooks;
mod interleavings;
mod limits;
mod lives;
#[path = "../common/machine.rs"]
mod machine;
mod mutants;
mod namespaces;
mod no_cgroups;
#[path = "../common/output.rs"]
mod output;
mod pids;
mod privileges;
mod races;
mod rig;
mod scheduling;
mod seccomp;
mod silent;
mod stalling;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use reaper_exec::{
    io::{CaptureBinder, StandardBinder},
    monitor,
};

fn main() -> ExitCode {
    // What is not captured is bound as by the standard binder alone.
    let binder = || CaptureBinder::with_fallback(StandardBinder::default());
    monitor::run_if_monitor(|| monitor::MonitorConfig::new(stalling::Stalling, binder()));
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, create, root, stall, id] = &arguments[..]
        && create == "--create"
    {
        rig::create(root.as_ref(), stall.as_ref(), id);
        return ExitCode::SUCCESS;
    }
    if let [_, fork, root] = &arguments[..]
        && fork == "--fork"
    {
        embedding::fork_and_use(root.as_ref());
        return ExitCode::SUCCESS;
    }
    if let [_, explode, count] = &arguments[..]
        && explode == "--explode"
    {
        fork_bomb::explode(count.parse().unwrap());
    }
    let cases = [
        lives::CASES,
        pids::CASES,
        privileges::CASES,
        scheduling::CASES,
        seccomp::CASES,
        execs::CASES,
        ends::CASES,
        crashes::CASES,
        races::CASES,
        clients::CASES,
        contract::CASES,
        mutants::CASES,
        capture::CASES,
        silent::CASES,
        limits::CASES,
        fork_bomb::CASES,
        embedding::CASES,
        hooks::CASES,
        namespaces::CASES,
        no_cgroups::CASES,
    ]
    .concat();
    let trials = cases.into_iter().map(|(name, case)| {
        Trial::test(name, move || {
            rig::block_on(case);
            Ok(())
        })
    });
    let interleavings = Trial::test("random_lives_follow_the_model", || {
        interleavings::check();
        Ok(())
    });
    let trials = trials.chain([interleavings]).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
