//! How the namespace of a scope is kept and entered.
//!
//! Root binds it to a file ("pins" it), so it outlives its members and is joined without a lock. An
//! ordinary user can bind nothing: each member holds the namespaces open and says in its marker by
//! which descriptors; the next member opens them through `/proc`. [`ScopeNamespace`] is the
//! difference, and its methods are the only ones that ask for it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
    process::{chdir, chroot},
};
use serde::{Deserialize, Serialize};

use crate::{
    contract::{Context, Error, user::Privilege},
    linux::{
        files::{exists, read_json, remove_file},
        helper::Helper,
        namespace::{Namespaces, is_namespace},
    },
    store::{layer_table::TableHeader, members::members, paths::ScopePaths},
};

/// The namespace of a scope that is mounted.
#[derive(Debug)]
pub(crate) enum ScopeNamespace {
    /// Bind-mounted to a file, by root.
    ///
    /// Without the system calls that take a tree from one namespace to another
    /// ([`Interface::Classic`](crate::mount::interface::Interface::Classic)) its root is the
    /// host's, as a slave: what the host mounts and unmounts there arrives, and nothing goes back.
    /// The view is mounted below Reaper's own files. A member takes its volumes from the host's
    /// root into its own copy of the namespace, makes the view the root, and detaches the host's
    /// root before anything else runs.
    Pinned {
        mount: Namespaces,
        /// Where the view is mounted, if it is not the root.
        view_path: Option<PathBuf>,
        /// Whether containers must not be able to take the view's mounts away.
        locked: bool,
    },
    /// Open in a member, without root.
    Held(Namespaces),
}

impl ScopeNamespace {
    /// Finds the namespace of a scope that is mounted, and reads what its table says.
    pub(crate) fn find(
        privilege: Privilege,
        paths: &ScopePaths,
    ) -> Result<Option<(Self, TableHeader)>, Error> {
        let found = match privilege {
            Privilege::Root => open_pin(paths)?,
            Privilege::User => find_held(paths)?,
        };
        let Some(namespaces) = found else {
            return Ok(None);
        };
        let header = TableHeader::read(paths)?.unwrap_or_default();
        let namespace = match privilege {
            Privilege::Root => Self::Pinned {
                mount: namespaces,
                view_path: header.keeps_host.then(|| paths.view.clone()),
                locked: header.locked,
            },
            Privilege::User => Self::Held(namespaces),
        };
        Ok(Some((namespace, header)))
    }

    /// Finds the namespace of a scope that was just made.
    pub(crate) fn find_made(
        privilege: Privilege,
        paths: &ScopePaths,
    ) -> Result<(Self, TableHeader), Error> {
        Self::find(privilege, paths)?.ok_or_else(|| Error::System {
            operation: "open the namespace pinned to",
            path: paths.pin.clone(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// Keeps the namespace that `helper` has assembled beyond the helper's end.
    pub(crate) fn keep(
        privilege: Privilege,
        paths: &ScopePaths,
        helper: &Helper,
    ) -> Result<(Self, TableHeader), Error> {
        match privilege {
            Privilege::Root => {
                pin(paths, helper)?;
                Self::find_made(privilege, paths)
            }
            Privilege::User => {
                let namespaces = Namespaces::with_user(helper.id())?;
                let header = TableHeader::read(paths)?.unwrap_or_default();
                Ok((Self::Held(namespaces), header))
            }
        }
    }

    /// Writes to a member's marker how others can open the namespace, if nothing else keeps it.
    pub(crate) fn announce(&self, marker: &Path) -> Result<(), Error> {
        let Self::Held(namespaces) = self else {
            return Ok(());
        };
        let holder = Holder::of(namespaces).context("stat", marker)?;
        let text = serde_json::to_vec(&holder).map_err(io::Error::from);
        text.and_then(|text| fs::write(marker, text))
            .context("write", marker)
    }

    /// Whether volumes have to be bound from the host's root, which the namespace still has.
    pub(crate) fn keeps_host(&self) -> bool {
        matches!(
            self,
            Self::Pinned {
                view_path: Some(_),
                ..
            }
        )
    }

    /// Moves the calling process, which has one thread, into the namespace, whatever its root is.
    pub(crate) fn join(&self) -> Result<(), Error> {
        let (Self::Pinned {
            mount: namespaces, ..
        }
        | Self::Held(namespaces)) = self;
        namespaces
            .enter()
            .context("enter", "the mount namespace of the scope")
    }

    /// Moves the calling process, which has one thread, into the view that all members share.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        self.join()?;
        if let Self::Pinned {
            view_path: Some(view),
            ..
        } = self
        {
            chroot(view).context("change the root to", view)?;
            chdir("/").context("change to", "/")?;
        }
        Ok(())
    }
}

/// How many directories a view lies below the one that holds all scopes: `live/scopes/SCOPE/view`.
pub(crate) const VIEW_DEPTH: usize = 4;

/// Opens the pinned namespace, if there is one.
pub(crate) fn open_pin(paths: &ScopePaths) -> Result<Option<Namespaces>, Error> {
    let mount = match File::open(&paths.pin) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("open", &paths.pin),
    };
    let is_pinned = is_namespace(&mount).context("look at", &paths.pin)?;
    Ok(is_pinned.then_some(Namespaces { user: None, mount }))
}

fn pin(paths: &ScopePaths, helper: &Helper) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&paths.pin)
        .context("make", &paths.pin)?;
    let namespace = format!("/proc/{}/ns/mnt", helper.pid());
    mount_bind(namespace, &paths.pin).context("bind the mount namespace to", &paths.pin)
}

/// Ends the pinned namespace of a scope, if it has one: no new member can join it.
pub(crate) fn unpin(paths: &ScopePaths) -> Result<(), Error> {
    if !exists(&paths.pin)? {
        return Ok(());
    }
    match unmount(&paths.pin, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Not mounted, or not there at all.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => remove_file(&paths.pin),
        Err(errno) => Err(errno).context("unpin", &paths.pin),
    }
}

/// Opens the namespaces that a member of the scope holds, if it has members.
fn find_held(paths: &ScopePaths) -> Result<Option<Namespaces>, Error> {
    for id in members(paths)? {
        let marker = paths.members().join(id);
        let Ok(Some(holder)) = read_json::<Holder>(&marker) else {
            // The member was killed before it wrote its marker.
            continue;
        };
        match holder.open() {
            Ok(Some(namespaces)) => return Ok(Some(namespaces)),
            // The member is ending: all its container's processes have ended before.
            Ok(None) => {}
            Err(error) => return Err(error).context("join the scope of", marker),
        }
    }
    Ok(None)
}

/// Where a member has the namespaces open: the content of its marker.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    user: i32,
    mount: i32,
    /// The inode of the mount namespace: the pid and the descriptors may be reused by others.
    inode: u64,
}

impl Holder {
    fn of(namespaces: &Namespaces) -> io::Result<Self> {
        let user = namespaces.user.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        Ok(Self {
            pid: std::process::id(),
            user,
            mount: namespaces.mount.as_raw_fd(),
            inode: namespaces.mount.metadata()?.ino(),
        })
    }

    fn open(&self) -> io::Result<Option<Namespaces>> {
        let open = |fd: i32| match File::open(format!("/proc/{}/fd/{fd}", self.pid)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        };
        let (Some(user), Some(mount)) = (open(self.user)?, open(self.mount)?) else {
            return Ok(None);
        };
        let is_same = |file: &File| file.metadata().is_ok_and(|now| now.ino() == self.inode);
        let is_namespace = |file: &File| is_namespace(file).is_ok_and(|is| is);
        let found = is_namespace(&user) && is_namespace(&mount) && is_same(&mount);
        let user = Some(user);
        Ok(found.then_some(Namespaces { user, mount }))
    }
}
