//! The rules for version 1's controller: what holds by default, and exceptions from it.
//!
//! An exception cannot be taken from another one. Where it is allowed by default, an access is
//! forbidden if any exception has any of it; where it is forbidden by default, it is allowed if one
//! exception has all of it (security/device_cgroup.c).

use super::rules::{Access, Entry, Table};

/// What is written to the files of a cgroup, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exceptions {
    /// What holds by default.
    pub(super) allow: bool,
    /// From what is allowed, or forbidden, by default.
    pub(super) lines: Vec<String>,
}

/// The exceptions that come to the same as the table.
///
/// # Errors
/// No exceptions do: an entry, and a wider one from which it would have to be excepted.
pub(super) fn exceptions(table: &Table) -> Result<Exceptions, String> {
    let of = |allow| {
        let excepted = |entry: &Entry| match allow {
            true => entry.allowed.inverse(),
            false => entry.allowed,
        };
        let lines = lines(table, excepted)?;
        Ok(Exceptions { allow, lines })
    };
    of(false).or_else(|reason| of(true).map_err(|_| reason))
}

fn lines(table: &Table, excepted: impl Fn(&Entry) -> Access) -> Result<Vec<String>, String> {
    let entries = &table.0;
    for (index, wide) in entries.iter().enumerate() {
        if wide.major.is_some() && wide.minor.is_some() {
            continue;
        }
        for (before, entry) in entries[..index].iter().enumerate() {
            if excepted(wide).is_within(excepted(entry)) {
                continue;
            }
            if let Some(common) = common(entry, wide)
                && !entries[..before].iter().any(|exact| place(exact) == common)
            {
                return Err(format!(
                    "the controller devices of cgroup v1 has no exceptions from exceptions, and {} \
                     would be one from {}",
                    entry.line(Access::ALL),
                    wide.line(Access::ALL)
                ));
            }
        }
    }
    let has_any = |entry: &&Entry| excepted(entry) != Access::NONE;
    let line = |entry: &Entry| entry.line(excepted(entry));
    // Those that are within a wider one do no harm.
    Ok(entries.iter().filter(has_any).map(line).collect())
}

/// Which devices an entry is about.
type Place = (char, Option<u32>, Option<u32>);

fn place(entry: &Entry) -> Place {
    (entry.kind.letter(), entry.major, entry.minor)
}

/// Which devices both are about.
fn common(one: &Entry, other: &Entry) -> Option<Place> {
    let both = |one: Option<u32>, other: Option<u32>| match (one, other) {
        (Some(one), Some(other)) if one != other => None,
        _ => Some(one.or(other)),
    };
    let (major, minor) = (both(one.major, other.major)?, both(one.minor, other.minor)?);
    (one.kind == other.kind).then_some((one.kind.letter(), major, minor))
}
