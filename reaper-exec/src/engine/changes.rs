//! Which containers below a state root may have changed, as the kernel reports it (inotify(7)).

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use reaper_spec::ContainerId;
use reaper_state::durable;
use tokio::io::{Interest, unix::AsyncFd};

/// The inotify(7) events of a folder whose entries were created, removed or replaced.
const ENTRIES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The inotify(7) events of a folder that is no longer at its path.
const REMOVED: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);
/// The same, with those that are reported unasked: the mount went, or the watch.
const GONE: AddWatchFlags = REMOVED
    .union(AddWatchFlags::IN_UNMOUNT)
    .union(AddWatchFlags::IN_IGNORED);

/// The containers whose records may have changed.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Any of them.
    pub(super) all: bool,
    pub(super) ids: BTreeSet<ContainerId>,
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        !self.all && self.ids.is_empty()
    }
}

/// Tells which containers below a root may have changed, not how.
#[derive(Debug)]
pub(super) struct Changes {
    notes: AsyncFd<OwnedFd>,
    inotify: Inotify,
    root: WatchDescriptor,
    /// The root is not there any more: the kernel reports nothing of it.
    is_over: bool,
    followed: HashMap<WatchDescriptor, ContainerId>,
}

impl Changes {
    pub(super) fn below(root: &Path) -> io::Result<Self> {
        durable::create_dir_all(root)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // A database is changed in place; a file beside it has its times changed then.
        let wanted = ENTRIES | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB | REMOVED;
        let root = inotify.add_watch(root, wanted)?;
        let notes = inotify.as_fd().try_clone_to_owned()?;
        Ok(Self {
            notes: crate::sys::watch(notes, Interest::READABLE)?,
            inotify,
            root,
            is_over: false,
            followed: HashMap::new(),
        })
    }

    /// Watches a container's folder too, once it is there. To do so again changes nothing.
    pub(super) fn follow(&mut self, folder: &Path, id: &ContainerId) -> io::Result<()> {
        match self.inotify.add_watch(folder, ENTRIES) {
            Ok(folder) => drop(self.followed.insert(folder, id.clone())),
            // Its coming is a change of the root. What is no folder has no records.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(Errno::ENOSPC) => {
                return Err(io::Error::other(
                    "no inotify watch is left: raise fs.inotify.max_user_watches",
                ));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) async fn wait(&mut self) -> io::Result<Dirty> {
        loop {
            if self.is_over {
                return Err(io::ErrorKind::NotFound.into());
            }
            let mut ready = self.notes.readable().await?;
            if let Ok(events) = ready.try_io(|_| Ok(self.inotify.read_events()?)) {
                drop(ready);
                let mut dirty = Dirty::default();
                for event in events? {
                    self.record_event(&event, &mut dirty);
                }
                return Ok(dirty);
            }
        }
    }

    fn record_event(&mut self, event: &InotifyEvent, dirty: &mut Dirty) {
        if event.wd == self.root && event.mask.intersects(GONE) {
            // What came before is still told.
            self.is_over = true;
            dirty.all = true;
        } else if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.followed.remove(&event.wd);
        } else if let Some(id) = self.followed.get(&event.wd) {
            dirty.ids.insert(id.clone());
        } else if event.wd == self.root {
            let name = event.name.as_deref().and_then(OsStr::to_str);
            match name.and_then(|name| ContainerId::new(name).ok()) {
                Some(id) => drop(dirty.ids.insert(id)),
                // A store's own file.
                None => dirty.all = true,
            }
        } else {
            // Notes were lost, or came late.
            dirty.all = true;
        }
    }
}
