//! Limits: `linux.resources` of the spec, written into the container's cgroups.
//!
//! A limit that is not enforced is worse than none, since a scheduler counts on it. So whatever the
//! spec asks for is set or is an error, which names the file. What an engine writes into each spec,
//! asked or not, is skipped where the node has no controller for it.

mod convert;
mod journal;
mod table;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use reaper_spec::Resources;

use self::{
    journal::Journal,
    table::{Files, Setting, TABLE, Write},
};
use super::{error::Error, set::Cgroups, subtree};

/// Writes `resources` into `cgroups`. `refused` says why cgroups are missing.
///
/// # Errors
/// The first setting that could not be written: [`Error::NoController`], [`Error::Contradiction`] or
/// [`Error::Limit`].
pub(crate) fn apply(
    cgroups: &Cgroups,
    resources: &Resources,
    refused: &[Error],
) -> Result<(), Error> {
    apply_all(cgroups, resources, refused, None)
}

/// Changes the limits of a container that runs. What `resources` does not name stays as it is.
///
/// # Errors
/// As of [`apply`]: then nothing is changed.
pub(crate) fn update(cgroups: &Cgroups, resources: &Resources) -> Result<(), Error> {
    let resources = completed(cgroups, resources);
    check_usage(cgroups, &resources)?;
    let mut journal = Journal::default();
    let applied = apply_all(cgroups, &resources, &[], Some(&mut journal));
    if applied.is_err() {
        journal.restore();
    }
    applied
}

/// What version 2 has in one file, or relative to another, with the values that stay.
fn completed(cgroups: &Cgroups, resources: &Resources) -> Resources {
    let mut resources = resources.clone();
    let Some(cgroup) = cgroups.v2() else {
        return resources;
    };
    let read = |file: &str| {
        let text = fs::read_to_string(cgroup.path().join(file)).unwrap_or_default();
        let word = text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        word.parse::<i64>().ok().or((word == "max").then_some(-1))
    };
    let cpu = &mut resources.cpu;
    if cpu.period.is_some() && cpu.quota.is_none_or(|quota| quota == 0) {
        cpu.quota = read("cpu.max");
    }
    let memory = &mut resources.memory;
    if memory.swap.is_some() && memory.limit.is_none_or(|limit| limit == 0) {
        memory.limit = read("memory.max");
    }
    resources
}

/// With `checkBeforeUpdate` a limit below what is in use is refused: the kernel would take it, and
/// kill.
fn check_usage(cgroups: &Cgroups, resources: &Resources) -> Result<(), Error> {
    let limit = resources.memory.limit.unwrap_or(0);
    if resources.memory.check_before_update != Some(true) || limit <= 0 {
        return Ok(());
    }
    let usage = cgroups
        .stats()
        .memory
        .map_or(0, |memory| memory.memory.usage);
    if u64::try_from(limit).is_ok_and(|limit| usage <= limit) {
        return Ok(());
    }
    Err(Error::Contradiction {
        setting: "memory.limit".to_owned(),
        reason: format!("{usage} bytes are in use"),
    })
}

fn apply_all(
    cgroups: &Cgroups,
    resources: &Resources,
    refused: &[Error],
    mut journal: Option<&mut Journal>,
) -> Result<(), Error> {
    let target = Target::new(cgroups, refused);
    for setting in TABLE {
        match target.place(setting) {
            Some((folder, files)) => {
                let writes = (files.writes)(resources).map_err(|reason| Error::Contradiction {
                    setting: setting.name.to_owned(),
                    reason,
                })?;
                write_all(setting.name, folder, writes, journal.as_deref_mut())?;
            }
            None if (setting.is_asked)(resources) => return Err(target.missing(setting)),
            None => {}
        }
    }
    for (key, value) in &resources.unified {
        target.write_unified(key, value, journal.as_deref_mut())?;
    }
    Ok(())
}

/// The cgroups, and which controllers are there.
struct Target<'a> {
    cgroups: &'a Cgroups,
    v2_controllers: Vec<String>,
    refused: &'a [Error],
}

impl<'a> Target<'a> {
    fn new(cgroups: &'a Cgroups, refused: &'a [Error]) -> Self {
        let v2 = cgroups.v2().map(|cgroup| cgroup.controllers());
        Self {
            cgroups,
            v2_controllers: v2.and_then(Result::ok).unwrap_or_default(),
            refused,
        }
    }

    /// Where a setting is, and its files there.
    fn place(&self, setting: &'static Setting) -> Option<(&'a Path, &'static Files)> {
        let v1 = setting.v1.as_ref().and_then(|files| {
            let cgroup = self.cgroups.with_controller(files.controller)?;
            Some((cgroup.path(), files))
        });
        v1.or_else(|| {
            let files = setting.v2.as_ref()?;
            Some((self.v2_with(files.controller)?, files))
        })
    }

    fn v2_with(&self, controller: &str) -> Option<&'a Path> {
        let has_it = self.v2_controllers.iter().any(|name| name == controller);
        let cgroup = self.cgroups.v2().filter(|_| has_it)?;
        Some(cgroup.path())
    }

    fn missing(&self, setting: &Setting) -> Error {
        let controllers = [&setting.v1, &setting.v2];
        let mut controllers: Vec<_> = controllers
            .into_iter()
            .flatten()
            .map(|files| files.controller)
            .collect();
        controllers.dedup();
        let only_v1 = setting.v2.is_none() && self.cgroups.v1().is_empty();
        let reason = match self.refused.first() {
            Some(error) => error.to_string(),
            None if only_v1 => "cgroup v2 has no such setting".to_owned(),
            None => no_controller(&controllers.join(" or ")),
        };
        Error::NoController {
            setting: setting.name.to_owned(),
            reason,
        }
    }

    /// A file of version 2, with the name of its controller in front.
    fn write_unified(
        &self,
        key: &str,
        value: &str,
        journal: Option<&mut Journal>,
    ) -> Result<(), Error> {
        let setting = format!("unified[{key:?}]");
        let controller = key.split('.').next().unwrap_or_default();
        let folder = match controller {
            "cgroup" => self.cgroups.v2().map(|cgroup| cgroup.path()),
            _ => self.v2_with(controller),
        };
        let Some(folder) = folder else {
            let reason = no_controller(&format!("{controller} (of version 2)"));
            return Err(Error::NoController { setting, reason });
        };
        let write = Write {
            choices: vec![(key.to_owned(), value.to_owned())],
            optional: false,
        };
        write_all(&setting, folder, vec![write], journal)
    }
}

fn no_controller(controller: &str) -> String {
    format!(
        "the container has no cgroup with the controller {controller}: mount or enable it, or run \
         without limits (cgroups = \"track\")"
    )
}

/// Writes all of a setting. What is refused is written again after the others.
fn write_all(
    setting: &str,
    folder: &Path,
    writes: Vec<Write>,
    mut journal: Option<&mut Journal>,
) -> Result<(), Error> {
    let mut refused = Vec::new();
    for write in writes {
        let Some((path, value)) = choose(setting, folder, write)? else {
            continue;
        };
        if let Some(journal) = &mut journal {
            journal.note(&path, &value);
        }
        if let Err(error) = subtree::write_existing(&path, &value) {
            refused.push((path, value, error));
        }
    }
    for (path, value, source) in refused {
        let source = match may_pass(&source) {
            true => match subtree::write_existing(&path, &value) {
                Ok(()) => continue,
                Err(error) => error,
            },
            false => source,
        };
        return Err(Error::Limit {
            setting: setting.to_owned(),
            path,
            value,
            source,
        });
    }
    Ok(())
}

/// Whether the kernel may accept a value once another has changed.
fn may_pass(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBUSY))
}

/// The file to write to, and what. `None` if it need not be written.
fn choose(setting: &str, folder: &Path, write: Write) -> Result<Option<(PathBuf, String)>, Error> {
    let first = write.choices.first().cloned();
    let exists = |(file, _): &(String, String)| fs::metadata(folder.join(file)).is_ok();
    let found = write.choices.into_iter().find(exists);
    match (found, first) {
        (Some((file, value)), _) => Ok(Some((folder.join(file), value))),
        (None, Some((file, value))) if !write.optional => Err(Error::Limit {
            setting: setting.to_owned(),
            path: folder.join(file),
            value,
            source: io::Error::from_raw_os_error(libc::ENOENT),
        }),
        (None, _) => Ok(None),
    }
}
