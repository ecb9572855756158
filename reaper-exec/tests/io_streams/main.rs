//! The standard streams of processes, with real FIFOs, files, loggers and terminals.

mod conformance;
mod fakes;
mod fifo;
mod file;
mod journal;
mod journald;
mod leaks;
mod logger;
#[path = "../common/machine.rs"]
mod machine;
mod mutants;
mod support;
mod terminal;
