//! What of the host a container may mount.
//!
//! A path is checked twice: when a container is created, by where it leads then, and by who opens what is
//! mounted, by where that lies. Who may change the directories on the way can lead it elsewhere meanwhile.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{rules::PolicyConfig, values::HostPath};
use crate::{
    container_spec::Mount,
    error::{Error, Rule},
};

/// Filesystems that are empty at first or show the kernel's own state, and no file of the node.
const OF_NO_FILES: [&str; 9] = [
    "cgroup",
    "cgroup2",
    "devpts",
    "hugetlbfs",
    "mqueue",
    "proc",
    "ramfs",
    "sysfs",
    "tmpfs",
];

/// The rule `host_paths` of one file. It is plain data, for the program that opens what is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AllowedMounts {
    /// The rule, and where it was written.
    pub rule: Rule,
    /// What a container may mount.
    pub paths: Vec<HostPath>,
}

impl PolicyConfig {
    /// The rules `host_paths` of all files. What is mounted has to keep each of them.
    pub fn allowed_mounts(&self) -> Vec<AllowedMounts> {
        let of = |rules: &super::rules::PolicyRules| {
            let paths = rules.host_paths.clone()?;
            let rule = rules.source.rule("host_paths");
            Some(AllowedMounts { rule, paths })
        };
        self.rules.iter().filter_map(of).collect()
    }
}

impl AllowedMounts {
    /// Checks a mount by where its source leads now, which may be elsewhere when it is opened.
    pub(super) fn check(&self, mount: &Mount) -> Result<(), Error> {
        if !mount.is_bind() {
            // By a device or by its options any other may show what is the node's: a disk, a directory below an
            // overlay.
            let kind = mount.typ.as_deref().unwrap_or_default();
            return self.allowed(OF_NO_FILES.contains(&kind), || {
                format!("a mount of the filesystem {kind}")
            });
        }
        let Some(source) = &mount.source else {
            return Ok(());
        };
        // What links on the way lead to counts. What does not exist cannot be mounted.
        match source.canonicalize().ok().or_else(|| plain(source)) {
            Some(real) => self.check_opened(mount, &real),
            None => self.allowed(false, || format!("a mount of {}", source.display())),
        }
    }

    /// Checks a bind mount by what was opened for its source, of which `real` is the path without links: what
    /// `/proc/self/fd` says of the descriptor that is mounted.
    ///
    /// # Errors
    /// [`Error::Policy`] if it does not lie below an allowed path, or may only be read and the mount can be
    /// written to.
    pub fn check_opened(&self, mount: &Mount, real: &Path) -> Result<(), Error> {
        let source = mount.source.as_deref().unwrap_or(real);
        let found = |what: &str| match source == real {
            true => format!("{what} of {}", source.display()),
            false => format!(
                "{what} of {}, which is {}",
                source.display(),
                real.display()
            ),
        };
        let covers = |path: &&HostPath| real.starts_with(&path.path);
        let mut covering = self.paths.iter().filter(covers).peekable();
        self.allowed(covering.peek().is_some(), || found("a mount"))?;
        self.allowed(
            mount.is_read_only() || covering.any(|path| !path.read_only),
            || found("a writable mount"),
        )
    }

    fn allowed(&self, allowed: bool, found: impl FnOnce() -> String) -> Result<(), Error> {
        if allowed {
            return Ok(());
        }
        Err(Error::Policy {
            rule: self.rule.clone(),
            found: found(),
        })
    }
}

/// The path without `.` and doubled separators, unless it goes up: that may lead anywhere.
pub(super) fn plain(path: &Path) -> Option<PathBuf> {
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    (!goes_up).then(|| path.components().collect())
}
