//! The Reaper shim.
fn main() {}
