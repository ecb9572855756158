//! The mount namespace that a base belongs to: the one that has its scopes pinned.
//!
//! A copy of a mount namespace, as of a service with private mounts, shows the files of a base and
//! none of the namespaces that are pinned there: the kernel leaves them out. A scope that is looked
//! for from there would be taken for one that is not mounted, and be mounted a second time over the
//! layers that are in use, which empties the overlay's work directory under the first. So the
//! file that is locked while a base is made says which namespace made it. A process in any other one
//! looks at the base by way of a process that is in that one, and has what concerns its mounts done
//! in there.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags, open};

use crate::{
    contract::{Context, Error},
    linux::{handle::fd_link, namespace::is_namespace},
};

const OWN: &str = "/proc/thread-self/ns/mnt";

/// Changes whenever the machine starts.
pub(crate) const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The namespace of a base that the calling process is not in.
#[derive(Debug)]
pub(crate) struct Home {
    root: OwnedFd,
    namespace: File,
}

impl Home {
    /// Finds the namespace that the base at `base` belongs to, if it is not the caller's and
    /// a process is in it. `record` says which it is.
    pub(crate) fn find(base: &Path, record: &Path) -> Result<Option<Self>, Error> {
        let own = own()?;
        let recorded = recorded(record)?;
        if recorded == Some(own) {
            return Ok(None);
        }
        let live = base.join("live");
        if recorded.is_none() && (!live.join("ready").exists() || has_pins(&live)) {
            return Ok(None);
        }
        let mut seen = HashSet::from([own]);
        for process in processes()? {
            // A process may end at any time.
            let Ok(inode) = inode(&process.join("ns/mnt")) else {
                continue;
            };
            let root = process.join("root");
            let live = root.join(live.strip_prefix("/").unwrap_or(&live));
            let is_home = match recorded {
                Some(home) => inode == home && live.join("ready").exists(),
                // An older Reaper did not say; it is where its scopes are pinned.
                None => seen.insert(inode) && has_pins(&live),
            };
            if is_home && let Ok(Some(home)) = Self::of(&process, inode) {
                return Ok(Some(home));
            }
        }
        Ok(None)
    }

    fn of(process: &Path, inode: u64) -> io::Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open(process.join("root"), flags, Mode::empty())?;
        let namespace = File::open(process.join("ns/mnt"))?;
        // Another process may have its pid by now.
        let is_same = namespace.metadata()?.ino() == inode;
        Ok(is_same.then_some(Self { root, namespace }))
    }

    /// Its root, by a path that leads there also from another namespace.
    pub(crate) fn root(&self) -> PathBuf {
        fd_link(&self.root)
    }

    /// Moves the calling process, which has one thread, into it.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNS)
            .context("enter the mount namespace of", "the overlays' base")
    }
}

/// Whether `record` says that a base belongs to the calling process's namespace.
pub(crate) fn is_own(record: &Path) -> Result<bool, Error> {
    Ok(recorded(record)? == Some(own()?))
}

/// Says in `record` that a base belongs to the calling process's namespace.
pub(crate) fn record_own(record: &Path) -> Result<(), Error> {
    let text = format!("{} {}\n", boot_id()?, own()?);
    fs::write(record, text).context("write", record)
}

/// The inode of the namespace that `record` names, unless the machine was started since.
fn recorded(record: &Path) -> Result<Option<u64>, Error> {
    let text = match fs::read_to_string(record) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.context("read", record)?,
    };
    let Some((boot, inode)) = text.trim_end().split_once(' ') else {
        return Ok(None);
    };
    let is_now = boot == boot_id()?;
    Ok(inode.parse().ok().filter(|_| is_now))
}

fn own() -> Result<u64, Error> {
    inode(Path::new(OWN)).context("stat", OWN)
}

fn inode(namespace: &Path) -> io::Result<u64> {
    Ok(fs::metadata(namespace)?.ino())
}

pub(crate) fn boot_id() -> Result<String, Error> {
    let text = fs::read_to_string(BOOT_ID).context("read", BOOT_ID)?;
    Ok(text.trim_end().to_owned())
}

/// Whether a scope is pinned below `live`, as the caller sees it.
fn has_pins(live: &Path) -> bool {
    let scopes = fs::read_dir(live.join("scopes")).into_iter().flatten();
    scopes.flatten().any(|scope| {
        let pin = File::open(scope.path().join("pin"));
        pin.is_ok_and(|pin| is_namespace(&pin).is_ok_and(|is| is))
    })
}

/// The directories of all processes that the caller sees.
fn processes() -> Result<impl Iterator<Item = PathBuf>, Error> {
    let entries = fs::read_dir("/proc").context("list", "/proc")?;
    let is_pid = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(is_pid))
}
