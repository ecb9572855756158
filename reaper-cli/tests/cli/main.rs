//! The runtime as its users see it: the real program, below a state root of its own.

mod completions;
mod doctor;
mod engine;
mod events;
mod exec;
mod housekeeping;
mod lifecycle;
mod logs;
mod overlay;
mod rig;
mod rootless;
mod run;
mod stores;
mod terminal;
