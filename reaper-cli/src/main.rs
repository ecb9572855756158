//! `reaper-runtime`: OCI containers as processes of this machine.

mod app;
mod args;
mod backends;
mod colours;
mod commands;
mod container;
mod detached;
mod error;
mod foreground;
mod host;
mod log;
mod logs;
mod oci;
mod outcome;
mod pid_file;
mod process;
mod proxy;
mod settings;
mod signals;
mod sockets;
mod stand_in;
mod streams;
mod suggest;
mod sys;
mod terminal;
mod text;

use std::process::ExitCode;

use reaper_exec::{io::StandardBinder, monitor};
use reaper_overlay::Configured;

fn main() -> ExitCode {
    monitor::run_if_monitor(|| {
        monitor::MonitorConfig::new(Configured::default(), StandardBinder::new())
    });
    commands::become_trial_if_asked();
    app::run(backends::open)
}
