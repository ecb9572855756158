//! Where a trial is made: folders of its own beside the state and the overlays of the node.
//!
//! They lie where the kernel decides as it does for the configured folders: the state's below the
//! state root, the overlays' on the filesystem of the configured base. Each is held by a lock while
//! its doctor lives, so that one whose lock is free was left by a doctor that was killed.

use std::{
    fs::{self, DirBuilder, File},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use reaper_overlay::mountinfo;
use reaper_spec::OverlayConfig;
use reaper_state::lock_exclusive;
use rustix::{
    fs::{FlockOperation, flock},
    mount::{UnmountFlags, unmount},
};

use super::steps::Failure;
use crate::commands::CommandContext;

/// How the folders are called. No container's id begins with a dot.
const PREFIX: &str = ".doctor-";
/// The source of Reaper's own mounts.
const OWN_MOUNT: &str = "reaper-overlay";

/// The folders that trials are made in.
#[derive(Debug)]
pub(super) struct Places {
    state: PathBuf,
    overlay: Option<PathBuf>,
}

/// The private folders of one trial.
#[derive(Debug)]
pub(super) struct Place {
    /// What its container, folders and files are called.
    pub(super) id: String,
    state: Folder,
    /// Unless it is the same folder, or there is no overlay.
    overlay: Option<Folder>,
}

/// A folder that is held.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// The folders above that were made for it.
    made: Vec<PathBuf>,
    _lock: File,
}

impl Places {
    pub(super) fn of(call: &CommandContext) -> Self {
        let root = call.containers.root().path();
        // All namespaces of a root have their trials in one place: `ROOT/ns/NAME`.
        let state = match root.ancestors().nth(2) {
            Some(above) if call.one_namespace => above,
            _ => root,
        };
        let overlay = &call.config.overlay;
        Self {
            state: state.to_owned(),
            overlay: overlay.enabled.then(|| beside(overlay)),
        }
    }

    /// The folders of doctors that were killed.
    pub(super) fn left(&self) -> Vec<PathBuf> {
        let overlay = self.overlay.as_ref().filter(|path| **path != self.state);
        let mut found = Vec::new();
        // The containers first: they are what uses the overlays.
        for parent in [Some(&self.state), overlay].into_iter().flatten() {
            let folders = folders(parent);
            found.extend(
                folders
                    .into_iter()
                    .filter(|path| hold(path, try_lock).is_ok()),
            );
        }
        found
    }

    /// Makes the folder of the state, under a name that is new. A doctor that looks for what others
    /// have left may take one that has just been made for that, and remove it.
    fn make_state(&self) -> Result<(String, Folder), Failure> {
        const ATTEMPTS: usize = 3;
        let mut attempt = 0;
        loop {
            let random = RandomState::new().hash_one(std::process::id());
            let name = format!("{PREFIX}{:08x}", random as u32);
            attempt += 1;
            match Folder::make(&self.state, &name) {
                Err(failure) if failure.errno.is_none() && attempt < ATTEMPTS => {}
                made => return made.map(|folder| (name, folder)),
            }
        }
    }

    /// Makes private folders.
    pub(super) fn make(&self) -> Result<Place, Failure> {
        let (name, state) = self.make_state()?;
        let overlay = self.overlay.as_ref().filter(|path| **path != self.state);
        let overlay = overlay
            .map(|parent| Folder::make(parent, &name))
            .transpose();
        match overlay {
            Ok(overlay) => Ok(Place {
                id: name[1..].to_owned(),
                state,
                overlay,
            }),
            Err(failure) => {
                state.remove()?;
                Err(failure)
            }
        }
    }
}

/// Where the overlays of a trial are. Below the base itself where scopes would see their mounts
/// otherwise: the base is hidden from them, and so is all below `/run`.
fn beside(config: &OverlayConfig) -> PathBuf {
    let base = &config.base;
    let is_mount = mountinfo::read().is_ok_and(|mounts| {
        let mut mounts = mounts.iter();
        mounts.any(|mount| mount.mount_point == *base && mount.source != OWN_MOUNT)
    });
    let hidden = !nix::unistd::geteuid().is_root() || base.starts_with("/run");
    match base.parent() {
        Some(parent) if hidden && !is_mount => parent.to_owned(),
        _ => base.clone(),
    }
}

/// The folders of trials in `parent`.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let is_trial = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    let found = entries.flatten().filter(is_trial);
    found.map(|entry| entry.path()).collect()
}

/// Locks an open folder unless another process has it locked.
fn try_lock(folder: &File) -> io::Result<()> {
    Ok(flock(folder, FlockOperation::NonBlockingLockExclusive)?)
}

/// Locks a folder by `lock`.
fn hold(path: &Path, lock: impl FnOnce(&File) -> io::Result<()>) -> io::Result<File> {
    let folder = File::open(path)?;
    lock(&folder)?;
    // Who locked one that was removed meanwhile has nothing.
    let is_there = fs::symlink_metadata(path)
        .is_ok_and(|there| folder.metadata().is_ok_and(|own| own.ino() == there.ino()));
    if is_there {
        Ok(folder)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Folder {
    fn make(parent: &Path, name: &str) -> Result<Self, Failure> {
        let failed = |path: &Path, error: &io::Error| {
            Failure::io(&format!("make {}", path.display()), error)
        };
        let missing = parent.ancestors().take_while(|path| !path.exists());
        let made: Vec<_> = missing.map(Path::to_owned).collect();
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let path = parent.join(name);
        let lock = builder
            .recursive(true)
            .create(parent)
            .and_then(|()| builder.recursive(false).create(&path))
            .and_then(|()| hold(&path, |folder| lock_exclusive(folder)));
        match lock {
            Ok(lock) => Ok(Self {
                path,
                made,
                _lock: lock,
            }),
            Err(error) => {
                remove_empty(&made);
                Err(failed(&path, &error))
            }
        }
    }

    /// Removes it with all that is in it, mounts included.
    fn remove(&self) -> Result<(), Failure> {
        let failed = |operation: &str, path: &Path, error: &io::Error| {
            Failure::io(&format!("{operation} {}", path.display()), error)
        };
        for mount in mounts_below(&self.path).into_iter().rev() {
            unmount(&mount, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .map_err(|errno| failed("unmount", &mount, &errno.into()))?;
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &self.path, &error));
            }
            _ => {}
        }
        remove_empty(&self.made);
        Ok(())
    }
}

/// Removes folders that were made, the lowest first, if nothing else is in them by now.
fn remove_empty(made: &[PathBuf]) {
    for path in made {
        let _ = fs::remove_dir(path);
    }
}

/// The mounts at and below `path`, in the order in which they were made.
pub(super) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    let mounts = mountinfo::read().unwrap_or_default();
    let mounts = mounts.into_iter().map(|mount| mount.mount_point);
    mounts.filter(|point| point.starts_with(path)).collect()
}

impl Place {
    /// The folder of a doctor that was killed, to be removed. It is one of the two that it had.
    pub(super) fn take_over(path: &Path) -> Result<Self, Failure> {
        let lock = hold(path, try_lock)
            .map_err(|error| Failure::io(&format!("lock {}", path.display()), &error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            id: name.trim_start_matches('.').to_owned(),
            state: Folder {
                path: path.to_owned(),
                made: Vec::new(),
                _lock: lock,
            },
            overlay: None,
        })
    }

    /// The state root.
    pub(super) fn state(&self) -> PathBuf {
        self.state.path.join("state")
    }

    /// The base of the overlays.
    pub(super) fn overlay(&self) -> PathBuf {
        let folder = self.overlay.as_ref().unwrap_or(&self.state);
        folder.path.join("overlay")
    }

    /// A folder to be shown as a volume.
    pub(super) fn volume(&self) -> PathBuf {
        self.state.path.join("volume")
    }

    /// A folder to mount it on, where there is no overlay to make one in.
    pub(super) fn mount_point(&self) -> PathBuf {
        self.state.path.join("mount-point")
    }

    /// The bundle of a container that an OCI runtime makes.
    pub(super) fn bundle(&self) -> PathBuf {
        self.state.path.join("bundle")
    }

    /// Removes it with all that is in it.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        self.overlay.as_ref().map_or(Ok(()), Folder::remove)?;
        self.state.remove()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn places(dir: &Path) -> Places {
        Places {
            state: dir.join("deep/state"),
            overlay: Some(dir.join("overlays")),
        }
    }

    #[test]
    fn trial_place_is_leftover_only_after_its_doctor_died() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let place = places.make().unwrap();
        assert!(places.left().is_empty());
        fs::create_dir_all(place.overlay().join("scopes")).unwrap();
        fs::create_dir(place.state()).unwrap();
        // As if it had been killed.
        drop(place);
        // A process that another test forks has a copy of a lock until it executes its program.
        let start = Instant::now();
        let mut removed = 0;
        while removed < 2 {
            assert!(start.elapsed() < Duration::from_secs(30), "{removed}");
            for path in places.left() {
                if let Ok(place) = Place::take_over(&path) {
                    place.remove().unwrap();
                    removed += 1;
                }
            }
            std::thread::yield_now();
        }
        assert!(places.left().is_empty());
        let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().count();
        assert_eq!(folders(&dir.path().join("overlays")), 0);
    }

    #[test]
    fn removing_trial_place_keeps_preexisting_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("overlays")).unwrap();
        places(dir.path()).make().unwrap().remove().unwrap();
        assert!(!dir.path().join("deep").exists());
        assert!(dir.path().join("overlays").exists());
    }

    #[test]
    fn trial_overlay_is_placed_beside_configured_base() {
        let of = |base: &str| {
            beside(&OverlayConfig {
                base: base.into(),
                ..OverlayConfig::default()
            })
        };
        assert_eq!(of("/run/nothing/overlay"), Path::new("/run/nothing"));
        if nix::unistd::geteuid().is_root() {
            // Scopes overlay what is mounted there, but not below a base.
            assert_eq!(of("/var/lib/x/overlay"), Path::new("/var/lib/x/overlay"));
        }
    }
}
