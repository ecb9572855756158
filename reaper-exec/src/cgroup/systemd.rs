//! Scopes: the cgroups that systemd hands over.
//!
//! Where systemd runs it owns the tree, and takes controllers and limits away from cgroups that it
//! does not know, for example at a `daemon-reload`. It is asked for a scope with `Delegate=yes`
//! instead. A scope's own attributes stay systemd's, so the container's cgroup, with its limits, is
//! below it.

#[cfg(feature = "systemd")]
mod request;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use super::error::Error;

/// Its socket for root. It exists where systemd is the manager of this host.
const SOCKET: &str = "/run/systemd/private";

/// The container's cgroup below its scope.
pub(crate) const BELOW_SCOPE: &str = "container";

/// A scope that systemd is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    slice: String,
    unit: String,
    path: PathBuf,
}

impl Scope {
    /// The scope that `relative`, a cgroup's path below the root, is in systemd's tree: `None` if it
    /// is no scope in a slice, or systemd does not run here.
    pub(crate) fn of(relative: &Path) -> Option<Self> {
        let scope = Self::named(relative)?;
        Path::new(SOCKET).exists().then_some(scope)
    }

    fn named(relative: &Path) -> Option<Self> {
        let unit = relative.file_name()?.to_str()?;
        let parent = relative.parent()?;
        let slice = match parent.file_name() {
            Some(name) => name.to_str()?,
            None => "-.slice",
        };
        let has =
            |name: &str, extension| Path::new(name).extension() == Some(OsStr::new(extension));
        (has(unit, "scope") && has(slice, "slice")).then(|| Self {
            slice: slice.to_owned(),
            unit: unit.to_owned(),
            path: relative.to_owned(),
        })
    }

    /// The path of the container's cgroup.
    pub(crate) fn container(&self) -> PathBuf {
        self.path.join(BELOW_SCOPE)
    }

    /// The path of a cgroup for the process that it is started with.
    pub(crate) fn keeper(&self) -> PathBuf {
        self.path.join("start")
    }

    /// Starts it with the process `pid` in it. It ends with its last process.
    ///
    /// # Errors
    /// [`Error::Systemd`] with what systemd says.
    #[cfg(feature = "systemd")]
    pub(crate) fn start(&self, pid: u32) -> Result<(), Error> {
        self.start_at(Path::new(SOCKET), pid, request::TIMEOUT)
            .map_err(|source| Error::Systemd {
                unit: self.unit.clone(),
                source,
            })
    }

    /// Refuses it: a cgroup in systemd's tree that systemd does not know of would lose its limits.
    #[cfg(not(feature = "systemd"))]
    pub(crate) fn start(&self, _pid: u32) -> Result<(), Error> {
        let reason = format!(
            "{} is systemd's, and this program was built without the feature `systemd` of reaper-exec",
            self.slice
        );
        Err(Error::Systemd {
            unit: self.unit.clone(),
            source: std::io::Error::new(std::io::ErrorKind::Unsupported, reason),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_in_a_slice_is_systemds() {
        let scope =
            |path: &str| Scope::named(Path::new(path)).map(|scope| (scope.slice, scope.unit));
        let some = |slice: &str, unit: &str| Some((slice.to_owned(), unit.to_owned()));
        assert_eq!(
            scope("kubepods.slice/kubepods-pod1.slice/cri-containerd-x.scope"),
            some("kubepods-pod1.slice", "cri-containerd-x.scope")
        );
        assert_eq!(scope("x.scope"), some("-.slice", "x.scope"));
        assert_eq!(scope("kubepods/besteffort/pod1/x"), None);
        assert_eq!(scope("kubepods/pod1/x.scope"), None);
        assert_eq!(scope("kubepods.slice/x"), None);
    }
}
