//! How the namespace of a scope is kept and entered: pinned to a file, or open in a member.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use nix::sched::{CloneFlags, setns};
use rustix::{
    mount::{UnmountFlags, mount_bind, unmount},
    process::{chdir, chroot},
};
use serde::{Deserialize, Serialize};

use crate::{
    contract::{Context, Error, user},
    linux::{
        files::{exists, read_json, remove_file},
        helper::Helper,
        namespace::{NSFS_MAGIC, Namespaces},
    },
    store::{layer_table::Brief, members::members, paths::ScopePaths},
};

/// Moves the calling process, which has one thread, into a scope.
pub(crate) type Enter<'a> = &'a dyn Fn() -> Result<(), Error>;

/// The same, with what it needs for that.
pub(crate) type Entrance = Box<dyn Fn() -> Result<(), Error>>;

/// How to enter the scope; `None` if it is not mounted.
pub(crate) fn find(paths: &ScopePaths) -> Result<Option<Entrance>, Error> {
    if user::is_needed() {
        let found = find_held(paths)?;
        return Ok(found.map(|namespaces| Box::new(move || namespaces.enter()) as Entrance));
    }
    let pin = Pin::open(paths)?;
    Ok(pin.map(|pin| Box::new(move || pin.enter()) as Entrance))
}

/// Opens the pinned namespace, if there is one.
pub(crate) fn open_pin(paths: &ScopePaths) -> Result<Option<File>, Error> {
    let file = match File::open(&paths.pin) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("open", &paths.pin),
    };
    let fs = rustix::fs::fstatfs(&file).context("look at", &paths.pin)?;
    Ok((fs.f_type as u64 == NSFS_MAGIC).then_some(file))
}

/// Ends a scope's namespace: nobody can join it any more.
pub(crate) fn unpin(paths: &ScopePaths) -> Result<(), Error> {
    use rustix::io::Errno;
    if !exists(&paths.pin)? {
        return Ok(());
    }
    match unmount(&paths.pin, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not mounted, or not there at all.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => remove_file(&paths.pin),
        Err(errno) => Err(errno).context("unpin", &paths.pin),
    }
}

pub(crate) fn pin(paths: &ScopePaths, helper: &Helper) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&paths.pin)
        .context("make", &paths.pin)?;
    let namespace = format!("/proc/{}/ns/mnt", helper.pid());
    mount_bind(namespace, &paths.pin).context("bind the mount namespace to", &paths.pin)
}

/// The namespace of a scope that is alive.
///
/// Without the system calls that take a tree from one namespace to another
/// ([`Interface::Classic`](crate::mount::interface::Interface::Classic)) its root is the host's, as a slave:
/// what the host mounts and unmounts there arrives, and nothing goes back. The view lies beside,
/// below Reaper's own files. A member takes its volumes from there into a copy of its own, makes
/// the view the root, and lets go of the host's before anything else runs.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) namespace: File,
    /// Where the view is, if it is not the root.
    pub(crate) beside: Option<PathBuf>,
    /// Whether the mounts of the view shall not be taken away by workloads.
    pub(crate) locked: bool,
}

/// Where the view of a scope is that keeps the host's root.
pub(crate) fn beside(paths: &ScopePaths) -> PathBuf {
    // Not on a filesystem of the host, which can be a volume.
    paths.live.join("view")
}

impl Pin {
    pub(crate) fn new(paths: &ScopePaths, namespace: File, brief: &Brief) -> Self {
        Self {
            namespace,
            beside: brief.keeps_host.then(|| beside(paths)),
            locked: brief.locked,
        }
    }

    /// The one of a scope, if it is alive.
    pub(crate) fn open(paths: &ScopePaths) -> Result<Option<Self>, Error> {
        let Some(namespace) = open_pin(paths)? else {
            return Ok(None);
        };
        let brief = Brief::read(paths)?.unwrap_or_default();
        Ok(Some(Self::new(paths, namespace, &brief)))
    }

    /// Whether volumes have to be taken from the host's root that it has.
    pub(crate) fn keeps_host(&self) -> bool {
        self.beside.is_some()
    }

    pub(crate) fn join(&self) -> Result<(), Error> {
        setns(&self.namespace, CloneFlags::CLONE_NEWNS)
            .context("enter", "the mount namespace of the scope")
    }

    /// Moves the calling process into the view that all members share.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        self.join()?;
        if let Some(view) = &self.beside {
            chroot(view).context("change the root to", view)?;
            chdir("/").context("change to", "/")?;
        }
        Ok(())
    }
}

/// Where a member has the namespaces open.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) user: i32,
    pub(crate) mount: i32,
    /// The inode of the mount namespace: the pid and the descriptors may have become others'.
    pub(crate) inode: u64,
}

/// The namespaces of a scope that has members.
pub(crate) fn find_held(paths: &ScopePaths) -> Result<Option<Namespaces>, Error> {
    for id in members(paths)? {
        let marker = paths.members().join(id);
        let Ok(Some(holder)) = read_json::<Holder>(&marker) else {
            // Its joiner was killed before it could write it.
            continue;
        };
        match holder.open() {
            Ok(Some(namespaces)) => return Ok(Some(namespaces)),
            // It is ending: all its processes have ended before.
            Ok(None) => {}
            Err(error) => return Err(error).context("join the scope of", marker),
        }
    }
    Ok(None)
}

impl Holder {
    fn open(&self) -> io::Result<Option<Namespaces>> {
        let open = |fd: i32| match File::open(format!("/proc/{}/fd/{fd}", self.pid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        };
        let (Some(user), Some(mount)) = (open(self.user)?, open(self.mount)?) else {
            return Ok(None);
        };
        let namespace =
            |file: &File| rustix::fs::fstatfs(file).is_ok_and(|fs| fs.f_type as u64 == NSFS_MAGIC);
        let same = namespace(&user)
            && namespace(&mount)
            && mount
                .metadata()
                .is_ok_and(|there| there.ino() == self.inode);
        Ok(same.then_some(Namespaces { user, mount }))
    }
}
