//! The base directory, which holds all overlays.
//!
//! It is on a tmpfs of Reaper's own where a size is configured, and where the directory would not
//! survive a reboot anyway; else on the disk, and then the layers outlive a reboot. Without root
//! nothing is mounted.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use reaper_spec::OverlayConfig;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    home::{self, Home},
    paths::RECORDS,
};
use crate::{
    contract::{
        Context, Error,
        host_paths::SOURCE,
        user::{self, Privilege},
    },
    linux::{
        files::{exists, make_dir},
        flock::{Lock, Mode},
        helper::Helper,
        mountinfo::{self, MountInfo},
        project,
    },
};

const TMPFS_MAGIC: u64 = 0x0102_1994;

const RAMFS_MAGIC: u64 = 0x8584_58f6;

/// How much of the memory the overlays may take where the configuration does not say.
const DEFAULT_SIZE: &str = "25%";

/// How much what Reaper itself writes down may take. It does not, by far.
const LIVE_SIZE: &str = "64m";

/// The base directory, ready for scopes.
///
/// ```text
/// BASE/scopes/SCOPE/     the layers, and layers.json; a tmpfs of its own where it has a limit
/// BASE/mount-points.json what was made to mount volumes on
/// BASE/live/             private mount, lost on reboot: ready, scopes/SCOPE/{pin,members/…},
///                        changing/SCOPE and members/SCOPE (locks), records/
/// BASE/live/records/     what workloads cannot fill: both tables, if the layers are lost on
///                        reboot as well, and the layers that hide what is masked
/// BASE/root              where a helper assembles, in its own namespace
/// ```
#[derive(Debug, Clone)]
pub(crate) struct Base {
    /// Where the calling process finds it.
    pub(crate) path: PathBuf,
    /// Where it is in the mount namespace that it belongs to.
    pub(crate) path_at_home: PathBuf,
    /// Whether the layers outlive a reboot.
    pub(crate) persistent: bool,
    /// Who makes the overlays.
    pub(crate) privilege: Privilege,
    /// The mount namespace that it belongs to, unless the calling process is in it.
    home: Option<Arc<Home>>,
}

impl Base {
    /// Makes the base ready if it is not yet.
    pub(crate) fn prepare(config: &OverlayConfig) -> Result<Self, Error> {
        let base = Self::of(config)?;
        if base.is_complete()? && base.is_owned()? {
            return Ok(base);
        }
        if base.privilege == Privilege::Root && base.home.is_none() {
            refuse_covered(&base.path)?;
        }
        make_dir(&base.path)?;
        let record = base.owner_record();
        let _lock = Lock::take(&record, Mode::Exclusive)?;
        // Another process may have made it meanwhile, elsewhere.
        let base = Self::of(config)?;
        let is_new = !base.is_ready()?;
        if base.privilege == Privilege::Root && base.home.is_none() {
            match home::record_own(&record) {
                // Nothing else is to be written, and who comes from elsewhere finds the pins.
                Err(error) if !is_new => tracing::warn!("{error}"),
                recorded => recorded?,
            }
        }
        if is_new {
            base.make(config)?;
        } else if !base.is_complete()? {
            base.at_home("make the place for records", Self::add_records)?;
        }
        Ok(base)
    }

    /// Fails where [`OverlayConfig::size_per_scope`] is set and cannot be enforced. Nothing is made.
    pub(crate) fn check_limit(config: &OverlayConfig) -> Result<(), Error> {
        if config.size_per_scope.is_none() {
            return Ok(());
        }
        let base = Self::of(config)?;
        let reason = if base.privilege == Privilege::User {
            "only root can mount a filesystem for each scope: unset it, or run as root"
        } else if config.size.is_some() {
            "overlay.size is set as well, and does not limit the filesystems that scopes have of \
             their own: unset one of the two"
        } else if base.persistent && !project::is_enforced(existing(&base.path))? {
            "the base is on a disk, and the kernel enforces no project quotas there: mount xfs or ext4 with the \
             option `prjquota` (ext4 needs its features `quota` and `project`), set overlay.base to a directory in \
             /run or on a tmpfs, or unset it"
        } else if base.persistent && project::hands_on(existing(&base.path))? {
            "the directory is in a project itself, which would take in what is moved there: set overlay.base to \
             another directory, or unset it"
        } else {
            return Ok(());
        };
        Err(Error::ScopeLimit {
            base: base.path_at_home,
            reason,
        })
    }

    /// The base if it is ready for members.
    pub(crate) fn if_ready(config: &OverlayConfig) -> Result<Option<Self>, Error> {
        let base = Self::of(config)?;
        Ok(base.is_ready()?.then_some(base))
    }

    /// The base at `path` if it is ready, for those who only look.
    pub(crate) fn open(config: &OverlayConfig) -> Result<Option<Self>, Error> {
        let base = Self::of(config)?;
        // A persistent base has scopes before anything was mounted since the boot.
        let there = base.is_ready()? || exists(&base.path.join("scopes"))?;
        Ok(there.then_some(base))
    }

    fn of(config: &OverlayConfig) -> Result<Self, Error> {
        let privilege = Privilege::of_process();
        let is_user = privilege == Privilege::User;
        // Root's default is not writable for other users; each has a directory for its state.
        let path = if is_user && config.base == OverlayConfig::default().base {
            user::user_directory()?.join("overlay")
        } else {
            checked(&config.base)?
        };
        let home = match privilege {
            Privilege::Root => Home::find(&path, &owner_record(&path))?.map(Arc::new),
            Privilege::User => None,
        };
        let root = home.as_ref().map_or("/".into(), |home| home.root());
        Ok(Self {
            persistent: is_user || !wants_tmpfs(config, &root)?,
            path: within(&root, &path),
            path_at_home: path,
            privilege,
            home,
        })
    }

    /// Whether the base belongs to the namespace that is known for it, or to none.
    fn is_owned(&self) -> Result<bool, Error> {
        match (self.privilege, &self.home) {
            (Privilege::Root, None) => home::is_own(&self.owner_record()),
            _ => Ok(true),
        }
    }

    fn owner_record(&self) -> PathBuf {
        owner_record(&self.path)
    }

    /// Runs `body` in the mount namespace that the base belongs to, where that matters: for what is
    /// mounted and unmounted.
    pub(crate) fn at_home<T, F>(&self, purpose: &'static str, body: F) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(&Self) -> Result<T, Error>,
    {
        let Some(home) = &self.home else {
            return body(self);
        };
        Helper::run(purpose, || {
            home.enter()?;
            body(&Self {
                path: self.path_at_home.clone(),
                home: None,
                ..self.clone()
            })
        })
    }

    /// The root of the mount namespace that the base belongs to.
    pub(crate) fn root(&self) -> PathBuf {
        self.home
            .as_ref()
            .map_or_else(|| PathBuf::from("/"), |home| home.root())
    }

    /// Whether the calling process is in the mount namespace that the base belongs to.
    pub(crate) fn is_home(&self) -> bool {
        self.home.is_none()
    }

    /// Whether there can be members.
    pub(crate) fn is_ready(&self) -> Result<bool, Error> {
        exists(&self.path.join("live/ready"))
    }

    /// Where the file `kind` of this base is kept that has to outlive the machine's run, wherever the
    /// layers are. `hash` tells the bases of a machine apart.
    pub(crate) fn outliving(&self, kind: &str, hash: &str) -> PathBuf {
        let state = match self.privilege {
            Privilege::Root if self.persistent => {
                return self.path.join(format!("{kind}.json"));
            }
            Privilege::Root => Some(PathBuf::from("/var/lib/reaper")),
            Privilege::User => user::state_home().map(|home| home.join("reaper")),
        };
        let dir = state.unwrap_or_else(|| self.path.clone());
        dir.join(format!("{kind}-{hash}.json"))
    }

    /// Whether it has all that this version adds to what the first one made.
    fn is_complete(&self) -> Result<bool, Error> {
        exists(&self.records_ready())
    }

    fn records_ready(&self) -> PathBuf {
        self.path.join(RECORDS).join("ready")
    }

    /// Makes the place for records in a base that an older Reaper has made ready, which had them on
    /// the filesystem of the layers.
    fn add_records(&self) -> Result<(), Error> {
        let records = self.path.join(RECORDS);
        make_dir(&records)?;
        if self.privilege == Privilege::Root && !self.persistent {
            own_tmpfs(&records, LIVE_SIZE)?;
        }
        let ready = self.records_ready();
        fs::write(&ready, b"1\n").context("write", ready)
    }

    fn make(&self, config: &OverlayConfig) -> Result<(), Error> {
        let live = self.path.join("live");
        if self.privilege == Privilege::User {
            // Nothing is pinned, and nothing can be mounted.
            make_dir(&live)?;
        } else if self.persistent {
            make_dir(&live)?;
            own_tmpfs(&live, LIVE_SIZE)?;
        } else {
            let size = config
                .size
                .map_or_else(|| DEFAULT_SIZE.to_owned(), |size| size.to_string());
            own_tmpfs(&self.path, &size)?;
            make_dir(&live)?;
            // A workload that fills its layers must not keep others from being created and deleted.
            own_tmpfs(&live, LIVE_SIZE)?;
        }
        for dir in [
            "root",
            "scopes",
            "live/scopes",
            "live/changing",
            "live/members",
            RECORDS,
        ] {
            make_dir(&self.path.join(dir))?;
        }
        let records = self.records_ready();
        fs::write(&records, b"1\n").context("write", records)?;
        let ready = live.join("ready");
        fs::write(&ready, b"1\n").context("write", ready)
    }
}

/// The base to which a mount of Reaper's own belongs: of one on a disk it is the directory `live` alone
/// that is a mount, with the layers beside it, and a scope with a limit is a mount in it.
pub(crate) fn base_of(mount_point: &Path) -> PathBuf {
    if let Some(scopes) = mount_point.parent()
        && scopes.ends_with("scopes")
        && let Some(base) = scopes.parent()
        && base.join("live").is_dir()
    {
        return base.into();
    }
    let live = match mount_point.parent() {
        Some(live) if mount_point.ends_with(RECORDS) => live,
        _ => mount_point,
    };
    base_of_live(live).unwrap_or_else(|| mount_point.to_owned())
}

fn base_of_live(mount_point: &Path) -> Option<PathBuf> {
    match mount_point.parent() {
        Some(base) if mount_point.ends_with("live") && base.join("scopes").is_dir() => {
            Some(base.into())
        }
        _ => None,
    }
}

/// Mounts an unbindable tmpfs on `path`, unless one of ours is there, left by a process that was
/// killed before the base was ready.
pub(super) fn own_tmpfs(path: &Path, size: &str) -> Result<(), Error> {
    let mounts = mountinfo::read()?;
    let there = mounts
        .iter()
        .any(|mount| mount.mount_point == path && mount.source == SOURCE);
    if !there {
        let data = format!("mode=0700,size={size}");
        let data = std::ffi::CString::new(data).map_err(io::Error::from);
        let data = data.context("mount a tmpfs on", path)?;
        mount(
            SOURCE,
            path,
            "tmpfs",
            MountFlags::NOSUID | MountFlags::NODEV,
            data.as_c_str(),
        )
        .context("mount a tmpfs on", path)?;
    }
    // A namespace can be bound only to a file on a private mount. An unbindable one is that, and is
    // left out of the copies that volumes are: a copy with a namespace in it can't be mounted in
    // a younger one (ELOOP), and a volume must not show the overlays.
    mount_change(path, MountPropagationFlags::UNBINDABLE).context("make unbindable", path)
}

/// The file that is locked while the base at `path` is made, and says which namespace made it. It is
/// beside the base: what is in there may be seen in one namespace only.
fn owner_record(path: &Path) -> PathBuf {
    let mut record = path.to_owned().into_os_string();
    record.push(".lock");
    record.into()
}

fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Fails if a filesystem of the base at `path` is mounted and cannot be reached, since something was mounted
/// over it later. A second one must not be made: the first one's scopes are in use.
fn refuse_covered(path: &Path) -> Result<(), Error> {
    let mounts = mountinfo::read()?;
    let seen = mountinfo::visible(&mounts);
    let is_ours = |mount: &&MountInfo| {
        mount.source == SOURCE
            && (mount.mount_point == path || mount.mount_point == path.join("live"))
    };
    let is_hidden = |mount: &MountInfo| !seen.iter().any(|other| other.id == mount.id);
    let Some(hidden) = mounts
        .iter()
        .find(|mount| is_ours(mount) && is_hidden(mount))
    else {
        return Ok(());
    };
    // Those that were mounted later come later.
    let mut covers = seen
        .iter()
        .rev()
        .filter(|mount| path.starts_with(&mount.mount_point));
    let by = covers.next().map_or(path, |cover| &cover.mount_point);
    Err(Error::BaseCovered {
        base: hidden.mount_point.clone(),
        by: by.to_owned(),
    })
}

/// Whether Reaper mounts a tmpfs of its own: where a size is to be kept, and where the directory
/// would not survive a reboot anyway (a tmpfs, or `/run` itself). `root` is that of the namespace
/// that the base belongs to.
fn wants_tmpfs(config: &OverlayConfig, root: &Path) -> Result<bool, Error> {
    if config.size.is_some() {
        return Ok(true);
    }
    let base = within(root, &config.base);
    let existing = existing(&base);
    let fs = rustix::fs::statfs(existing).context("look at the filesystem of", existing)?;
    // Our own tmpfs, once mounted, counts as well: the answer stays the same.
    if matches!(fs.f_type as u64, TMPFS_MAGIC | RAMFS_MAGIC) {
        return Ok(true);
    }
    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    let same = matches!((device(existing), device(&root.join("run"))), (Ok(a), Ok(b)) if a == b);
    Ok(same && config.base.starts_with("/run"))
}

/// `path`, or the nearest directory above it that exists.
fn existing(path: &Path) -> &Path {
    let mut above = path.ancestors();
    above.find(|dir| dir.exists()).unwrap_or(Path::new("/"))
}

fn checked(path: &Path) -> Result<PathBuf, Error> {
    let plain = path
        .components()
        .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && path != Path::new("/") {
        Ok(path.components().collect())
    } else {
        let wrong = io::Error::new(io::ErrorKind::InvalidInput, "no plain absolute path");
        Err(wrong).context("use as overlay base", path)
    }
}

#[cfg(test)]
impl Base {
    /// A base that was not prepared.
    pub(crate) fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            path_at_home: path.to_owned(),
            persistent: false,
            privilege: Privilege::Root,
            home: None,
        }
    }
}
