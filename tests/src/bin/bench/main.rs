//! Measures Reaper side by side with what it is compared to, in one run on one machine, and
//! prints Markdown tables:
//!
//! ```sh
//! cargo build --release --workspace --bins
//! sudo target/*/release/bench            # all; NAME… for some, --quick for fewer samples
//! ```
//!
//! What is compared takes turns, so that whatever else the machine does meets all alike. Reaper's
//! state is on a tmpfs, the overlay is off, and the binaries are those beside this program, or in
//! `REAPER_BIN_DIR`.

mod bundle;
mod calls;
mod cgroups;
mod cli;
mod ctr;
mod events;
mod idle;
mod latency;
mod memory;
mod privileges;
mod report;
mod rig;
mod scale;
mod stats;
mod task;
mod throughput;
mod usage;

use std::{env, process::ExitCode};

use report::Report;

/// How many samples are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Few, to see whether it works.
    quick: bool,
}

impl Effort {
    /// One of two numbers.
    pub(crate) fn pick<T>(self, thorough: T, quick: T) -> T {
        if self.quick { quick } else { thorough }
    }
}

/// A measurement by name.
type Benchmark = (&'static str, fn(Effort) -> Report);

const BENCHMARKS: [Benchmark; 11] = [
    ("run", cli::measure),
    ("privileges", privileges::measure),
    ("cgroups", cgroups::measure),
    ("calls", calls::measure),
    ("ctr", ctr::measure),
    ("exit", latency::measure),
    ("stats", stats::measure),
    ("memory", memory::measure),
    ("idle", idle::measure),
    ("scale", scale::measure),
    ("throughput", throughput::measure),
];

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) = env::args()
        .skip(1)
        .partition(|argument| argument.starts_with('-'));
    let unknown = names
        .iter()
        .any(|name| BENCHMARKS.iter().all(|(known, _)| known != name));
    if unknown || flags.iter().any(|flag| flag != "--quick") {
        let known = BENCHMARKS.map(|(name, _)| name).join(" ");
        eprintln!("usage: bench [--quick] [NAME…], with NAME of: {known}");
        return ExitCode::FAILURE;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("bench: containers are started, so it must be run as root: sudo bench …");
        return ExitCode::FAILURE;
    }
    // Shims leave their starter at once; what ends badly is then found here, and not lost.
    nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
    let effort = Effort {
        quick: !flags.is_empty(),
    };
    println!("{}", report::machine());
    for (name, measure) in BENCHMARKS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            println!("{}", measure(effort));
        }
    }
    ExitCode::SUCCESS
}
