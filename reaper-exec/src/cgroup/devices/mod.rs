//! Device rules: which devices the processes of a container may open, and make nodes of.
//!
//! Version 1 has a controller for it. In version 2 it is a program that the kernel runs, attached to
//! the container's cgroup, beside those of systemd and of engines in the cgroups around it, all of
//! which have to allow an access. It is gone with the cgroup. systemd leaves cgroups below a
//! delegated scope alone, and so the rules that are set there.

pub(super) mod attach;
mod instruction;
mod kernel;
mod program;
mod rules;
mod v1;

#[cfg(test)]
mod tests;

use std::{fs, io, path::Path};

use reaper_spec::DeviceRule;

use self::{attach::PROGRAM, rules::Table};
use super::{
    error::Error,
    set::{Cgroups, Hierarchies},
    subtree,
};

/// The controller of version 1.
const CONTROLLER: &str = "devices";

/// By what device rules hold on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceControl {
    /// The controller of version 1.
    V1,
    /// A program of the kernel (eBPF) that is attached to a cgroup of version 2.
    Program,
}

impl DeviceControl {
    /// What there is. A program is loaded for it, and attached nowhere.
    ///
    /// # Errors
    /// No hierarchy can hold rules, or the kernel's refusal of a program.
    pub fn find(hierarchies: &Hierarchies) -> io::Result<Self> {
        if hierarchies.v1.iter().any(|found| found.has(CONTROLLER)) {
            return Ok(Self::V1);
        }
        if hierarchies.v2.is_none() {
            let reason = "no hierarchy of cgroups is mounted and writable";
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        kernel::load(&program::compile(&Table(Vec::new())), PROGRAM)?;
        Ok(Self::Program)
    }
}

/// Whether the rules forbid anything.
pub(crate) fn restrict(rules: &[DeviceRule]) -> bool {
    Table::of(rules).is_some()
}

/// Has the container's processes keep to `rules`, which are done before there are any. `refused` says
/// why cgroups are missing.
///
/// Returns why the rules do not hold, where the node cannot have them hold and they are only those
/// that an engine writes into each spec.
///
/// # Errors
/// [`Error::NoController`], [`Error::Contradiction`], [`Error::Limit`] or [`Error::Devices`].
pub(crate) fn apply(
    cgroups: &Cgroups,
    rules: &[DeviceRule],
    refused: &[Error],
) -> Result<Option<Error>, Error> {
    let applied = match (Table::of(rules), cgroups.with_controller(CONTROLLER)) {
        (Some(table), Some(v1)) => return write(v1.path(), &table).map(|()| None),
        (None, Some(v1)) => return release(v1.path()).map(|()| None),
        (None, None) => return Ok(None),
        (Some(table), None) => match cgroups.v2() {
            Some(v2) => attach::attach(v2.path(), &program::compile(&table)),
            None => Err(Error::NoController {
                setting: CONTROLLER.to_owned(),
                reason: refused.first().map_or_else(
                    || "the container has no cgroup".to_owned(),
                    Error::to_string,
                ),
            }),
        },
    };
    match applied {
        Ok(()) => Ok(None),
        Err(error) if error.is_missing_device_control() && !rules::are_asked(rules) => {
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

/// Writes the rules into the files of version 1.
fn write(cgroup: &Path, table: &Table) -> Result<(), Error> {
    let exceptions = v1::exceptions(table).map_err(|reason| Error::Contradiction {
        setting: CONTROLLER.to_owned(),
        reason,
    })?;
    let [by_default, except] = match exceptions.allow {
        true => ["devices.allow", "devices.deny"],
        false => ["devices.deny", "devices.allow"],
    };
    write_line(cgroup, by_default, "a")?;
    let usual = Table::of(&[DeviceRule::default()]).map(|usual| v1::exceptions(&usual));
    let usual = usual.and_then(Result::ok).map(|usual| usual.lines);
    for line in &exceptions.lines {
        match write_line(cgroup, except, line) {
            // The cgroup around this one does not have the device either, and nothing but a default
            // asks for it.
            Err(Error::Limit { source, .. })
                if source.raw_os_error() == Some(libc::EPERM)
                    && usual.as_ref().is_some_and(|usual| usual.contains(line)) => {}
            written => written?,
        }
    }
    Ok(())
}

/// Lets the cgroup have all that the one around it has. A new one has that already.
fn release(cgroup: &Path) -> Result<(), Error> {
    let list = |cgroup: &Path| fs::read(cgroup.join("devices.list")).ok();
    match list(cgroup) == cgroup.parent().and_then(list) {
        true => Ok(()),
        false => write_line(cgroup, "devices.allow", "a"),
    }
}

fn write_line(cgroup: &Path, file: &str, line: &str) -> Result<(), Error> {
    let path = cgroup.join(file);
    subtree::write_existing(&path, line).map_err(|source| Error::Limit {
        setting: CONTROLLER.to_owned(),
        path,
        value: line.to_owned(),
        source,
    })
}
