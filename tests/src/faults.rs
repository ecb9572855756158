//! Breaking things on purpose, at a chosen moment.

use nix::sys::signal::Signal;

use crate::{
    procfs::{self, Process},
    runtime::until,
};

/// A process, stopped until this is dropped: whatever waits for it stands still meanwhile.
#[derive(Debug)]
pub struct Held(Process);

impl Held {
    /// Stops a process, and returns once it stands still.
    pub fn hold(process: &Process) -> Self {
        process.signal(Signal::SIGSTOP);
        until("a process stops", || {
            Process::find(process.pid).filter(|now| matches!(now.state, 'T' | 't'))
        });
        Self(process.clone())
    }

    /// Kills the process instead of letting it go on.
    pub fn kill(self) {
        kill(&self.0);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGCONT);
    }
}

/// Kills a process by SIGKILL, and returns once it has ended.
pub fn kill(process: &Process) {
    process.signal(Signal::SIGKILL);
    until("a killed process ends", || {
        (!process.is_alive()).then_some(())
    });
}

/// The monitor of a workload, found as the parent of its init process.
pub fn monitor_of(workload: u32) -> Process {
    let init = Process::find(workload).unwrap_or_else(|| panic!("no process {workload}"));
    Process::find(init.parent).unwrap_or_else(|| panic!("no parent of process {workload}"))
}

/// The shim of a workload, found as the parent of its monitor.
pub fn shim_of(workload: u32) -> Process {
    let monitor = monitor_of(workload);
    Process::find(monitor.parent).unwrap_or_else(|| panic!("no parent of {monitor:?}"))
}

/// Waits until a process of that command line, exactly, runs anywhere below this one.
pub fn process_named(command_line: &str) -> Process {
    until(&format!("{command_line:?} runs"), || {
        procfs::descendants(std::process::id())
            .into_iter()
            .find(|process| process.state != 'Z' && process.command_line() == command_line)
    })
}
