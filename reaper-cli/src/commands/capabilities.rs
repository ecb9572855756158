//! The capabilities of this kernel, as far as this program knows them.

use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};

/// The names of all that this program knows, such as `CAP_CHOWN`.
pub(super) fn known() -> Vec<String> {
    CapabilitySet::all().iter_names().map(named).collect()
}

/// The names of those that this program cannot give to a process: the kernel has them, the bounding
/// set of this program has not (capabilities(7)).
pub(super) fn missing() -> Vec<String> {
    let all = CapabilitySet::all();
    let lacks = |one| matches!(capability_is_in_bounding_set(one), Ok(false));
    let lacking = all.iter_names().filter(|&(_, one)| lacks(one));
    lacking.map(named).collect()
}

/// The names of a set as the kernel writes it in `/proc/PID/status`. A name that this program does not know
/// is left out.
pub(super) fn bits(names: &[String]) -> u64 {
    let known = CapabilitySet::all();
    let asked = known
        .iter_names()
        .filter(|&one| names.contains(&named(one)));
    asked.fold(0, |set, (_, one)| set | one.bits())
}

fn named((name, _): (&str, CapabilitySet)) -> String {
    format!("CAP_{name}")
}
