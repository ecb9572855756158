//! Noticing that the host changed under an overlay.
//!
//! What the kernel shows of an overlay whose lower layer was changed is undefined, though it does
//! no harm: a file may be the old one or the new one. People should know, and reset the scope.

use std::{
    collections::{BTreeMap, HashSet},
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::libc;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use crate::{
    contract::Error,
    linux::{
        mountinfo::{self, escape, unescape},
        syscall,
    },
};

/// What package managers touch whenever they change the host.
const DATABASES: [&str; 8] = [
    "/var/lib/dpkg/status",
    "/var/lib/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/Packages.db",
    "/lib/apk/db/installed",
    "/var/lib/pacman/local",
    "/nix/var/nix/db/db.sqlite",
];

/// The identity of what an overlay lies on: filesystems and package databases, by their path,
/// escaped as in mountinfo.
///
/// A field that is missing was not looked at, so nothing is said of it: a scope may have been made
/// by another version of this crate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HostSnapshot {
    databases: Option<BTreeMap<String, String>>,
    /// Which filesystem, and which directory of it.
    filesystems: BTreeMap<String, String>,
    /// Missing before Linux 6.8, which has no numbers that are never used again.
    mounts: Option<Mounts>,
}

/// The numbers of mounts (`STATX_MNT_ID_UNIQUE`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mounts {
    /// Those that the overlay lies on.
    lower: Vec<u64>,
    /// All that there were.
    seen: Vec<u64>,
}

impl HostSnapshot {
    /// Looks at the databases and at the roots of `mounts`.
    pub(crate) fn take<'a>(mounts: impl Iterator<Item = &'a Path>) -> Self {
        let mut filesystems = BTreeMap::new();
        let mut lower = Some(Vec::new());
        for path in mounts {
            let Some(filesystem) = Filesystem::at(path) else {
                continue;
            };
            filesystems.insert(escape(path.as_os_str()), filesystem.name());
            lower = lower.zip(filesystem.mount).map(|(mut lower, mount)| {
                lower.push(mount);
                lower
            });
        }
        let seen = syscall::list_mounts().ok();
        Self {
            databases: Some(
                DATABASES
                    .into_iter()
                    .filter_map(|path| Some((path.to_owned(), database(path)?)))
                    .collect(),
            ),
            filesystems,
            mounts: lower.zip(seen).map(|(lower, seen)| Mounts { lower, seen }),
        }
    }

    /// The paths that are not what they were, escaped.
    pub(crate) fn changed(&self) -> Vec<String> {
        let filesystems = self.filesystems.iter().filter(|(name, was)| {
            let path = unescape(name.as_bytes());
            Filesystem::at(path.as_ref()).map(|now| now.name()).as_ref() != Some(*was)
        });
        changed_databases(self.databases.as_ref())
            .map(str::to_owned)
            .chain(filesystems.map(|(path, _)| path.clone()))
            .collect()
    }

    /// The filesystems that were mounted when it was taken and are mounted nowhere now: who mounted
    /// overlays over them then keeps them, and their devices, in use.
    pub(crate) fn unmounted(&self) -> Result<Vec<Unmounted>, Error> {
        let was = self.filesystems.iter().filter_map(|(path, name)| {
            let path = PathBuf::from(unescape(path.as_bytes()));
            Some((path, device_in(name)?))
        });
        let is_there = |(path, device): &(PathBuf, (u32, u32))| {
            Filesystem::at(path).is_some_and(|now| now.device == *device)
        };
        let mut gone = was.filter(|was| !is_there(was)).peekable();
        if gone.peek().is_none() {
            return Ok(Vec::new());
        }
        // By a look at each: of a filesystem that has several devices (btrfs) mountinfo has another one.
        let mounts = mountinfo::read()?;
        let mounted: HashSet<(u32, u32)> = mounts
            .iter()
            .filter_map(|mount| Some(Filesystem::at(&mount.mount_point)?.device))
            .collect();
        let gone = gone.filter(|(_, device)| !mounted.contains(device));
        Ok(gone
            .map(|(mount_point, device)| Unmounted {
                mount_point,
                device,
            })
            .collect())
    }
}

/// A filesystem that was unmounted on the host and is still in use by an overlay over it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmounted {
    /// Where it was mounted.
    pub mount_point: PathBuf,
    /// Its device's major and minor number.
    pub device: (u32, u32),
}

/// As much of [`HostSnapshot`] as is needed to see that nothing has changed. It is read for each
/// container that joins a scope, on nodes with hundreds of mounts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct QuickCheck {
    databases: Option<BTreeMap<String, String>>,
    mounts: Option<Mounts>,
}

impl QuickCheck {
    /// Whether all is what it was, as far as that can be told from which mounts there are; `false`
    /// may mean anything. `matters` says whether the overlay would lie on a mount that appears at
    /// a path. A mount that was moved, or taken along by a renamed directory, is not noticed here,
    /// but by [`HostSnapshot::changed`].
    pub(crate) fn is_unchanged(&self, matters: impl Fn(&Path) -> bool) -> bool {
        let Some(was) = &self.mounts else {
            return false;
        };
        let Ok(now) = syscall::list_mounts() else {
            return false;
        };
        let now: HashSet<u64> = now.into_iter().collect();
        let seen: HashSet<u64> = was.seen.iter().copied().collect();
        // One that has gone by now, or cannot be looked at, may have been anything.
        let matters = |mount: u64| syscall::mount_point(mount).map_or(true, |path| matters(&path));
        was.lower.iter().all(|mount| now.contains(mount))
            && !now.difference(&seen).any(|&mount| matters(mount))
            && changed_databases(self.databases.as_ref()).next().is_none()
    }
}

impl fmt::Display for Unmounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.device;
        write!(f, "{}, device {major}:{minor}", self.mount_point.display())?;
        // Filesystems without a block device have none there.
        let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
        match link.ok().as_deref().and_then(Path::file_name) {
            Some(name) => write!(f, " ({})", name.display()),
            None => Ok(()),
        }
    }
}

/// The device of a filesystem's [name](Filesystem::name).
fn device_in(name: &str) -> Option<(u32, u32)> {
    let (device, _root) = name.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn changed_databases(
    were: Option<&BTreeMap<String, String>>,
) -> impl Iterator<Item = &'static str> {
    let known = were.into_iter();
    known.flat_map(|were| {
        DATABASES
            .into_iter()
            .filter(|path| database(path).as_ref() != were.get(*path))
    })
}

/// What every change of a package database changes.
fn database(path: &str) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    Some(format!(
        "{} {}.{:09}",
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ))
}

/// What is mounted somewhere.
struct Filesystem {
    device: (u32, u32),
    root: u64,
    mount: Option<u64>,
}

impl Filesystem {
    fn at(path: &Path) -> Option<Self> {
        let unique = StatxFlags::from_bits_retain(libc::STATX_MNT_ID_UNIQUE);
        // What is known of a network filesystem will do: its server may not answer.
        let flags = AtFlags::STATX_DONT_SYNC;
        let stat = statx(CWD, path, flags, StatxFlags::INO | unique).ok()?;
        let has_mount = stat.stx_mask & unique.bits() != 0;
        Some(Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            root: stat.stx_ino,
            mount: has_mount.then_some(stat.stx_mnt_id),
        })
    }

    fn name(&self) -> String {
        format!("{}:{} {}", self.device.0, self.device.1, self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_of_another_version_reports_no_changes() {
        let text = r#"{"/": "254:0 2", "/var/lib/dpkg/status": "17 1.000000000"}"#;
        let snapshot: HostSnapshot = serde_json::from_str(text).unwrap();
        assert_eq!(snapshot.changed(), [""; 0]);
        assert!(!quick_check(&snapshot).is_unchanged(|_| false));
    }

    #[test]
    fn another_filesystem_at_a_path_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(r"mount of\ours");
        fs::create_dir(&path).unwrap();
        let before = HostSnapshot::take([path.as_path()].into_iter());
        assert_eq!(before.changed(), [""; 0]);
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(before.changed(), [escape(path.as_os_str())]);
        fs::remove_dir(&path).unwrap();
        assert_eq!(before.changed(), [escape(path.as_os_str())]);
    }

    /// Whether the kernel lists mounts by numbers that are never used again (Linux 6.8).
    fn lists_mounts() -> bool {
        match syscall::list_mounts() {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => false,
            Err(error) => panic!("list the mounts: {error}"),
        }
    }

    /// Runs `test` in a mount namespace of its own.
    fn with_mounts(test: impl FnOnce() + Send + 'static) {
        use nix::sched::{CloneFlags, unshare};
        use rustix::mount::{MountPropagationFlags, mount_change};
        let test = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            test();
        };
        std::thread::spawn(test).join().unwrap();
    }

    fn mount(path: &Path) {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("test", path, "tmpfs", flags, c"").unwrap();
    }

    fn unmount(path: &Path) {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::empty()).unwrap();
    }

    /// What a joiner reads of `snapshot`.
    fn quick_check(snapshot: &HostSnapshot) -> QuickCheck {
        serde_json::from_str(&serde_json::to_string(snapshot).unwrap()).unwrap()
    }

    #[test]
    fn quick_check_notices_relevant_mounts() {
        with_mounts(|| {
            let dir = tempfile::tempdir().unwrap();
            let [lower, apart, other] = ["lower", "apart", "other"].map(|n| dir.path().join(n));
            for path in [&lower, &apart, &other] {
                fs::create_dir(path).unwrap();
            }
            mount(&lower);
            let snapshot = HostSnapshot::take([Path::new("/"), &lower].into_iter());
            let quick_check = quick_check(&snapshot);
            if !lists_mounts() {
                assert_eq!(snapshot.mounts, None);
                assert!(
                    !quick_check.is_unchanged(|_| false),
                    "it can't be told at a glance"
                );
                assert_eq!(snapshot.changed(), [""; 0]);
                mount(&lower);
                assert_eq!(snapshot.changed(), [escape(lower.as_os_str())]);
                unmount(&lower);
                unmount(&lower);
                return;
            }
            let is_unchanged = || quick_check.is_unchanged(|path| !path.starts_with(&apart));
            assert!(is_unchanged());
            mount(&apart);
            assert!(is_unchanged());
            mount(&other);
            assert!(!is_unchanged());
            unmount(&other);
            assert!(is_unchanged());
            mount(&lower);
            assert!(!is_unchanged());
            assert_eq!(snapshot.changed(), [escape(lower.as_os_str())]);
            unmount(&lower);
            assert!(is_unchanged());
            unmount(&lower);
            mount(&lower);
            assert!(!is_unchanged());
            unmount(&lower);
        });
    }

    #[test]
    fn list_mounts_returns_more_than_one_call_holds() {
        with_mounts(|| {
            if !lists_mounts() {
                return;
            }
            let dir = tempfile::tempdir().unwrap();
            let before = syscall::list_mounts().unwrap().len();
            mount(dir.path());
            for _ in 0..1500 {
                rustix::mount::mount_bind(dir.path(), dir.path()).unwrap();
            }
            let mounts = syscall::list_mounts().unwrap();
            assert_eq!(mounts.len(), before + 1501);
            assert!(mounts.is_sorted());
            assert_eq!(
                syscall::mount_point(mounts[before + 1500]).unwrap(),
                dir.path()
            );
            rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        });
    }
}
