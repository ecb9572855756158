//! The runtime as its users see it: the real program, below a state root of its own.

mod blocked;
mod completions;
mod devices;
mod doctor;
mod engine;
mod events;
mod exec;
mod files;
mod hooks;
mod hostile;
mod housekeeping;
mod inherited;
mod lifecycle;
mod limits;
mod logs;
mod overlay;
mod paths;
mod pause;
mod policy;
mod privileges;
mod rig;
mod rootless;
mod run;
mod stats;
mod stores;
mod terminal;
