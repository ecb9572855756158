//! The cgroup of a container.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    claim::{self, Claim},
    devices::attach,
    error::{Error, is_gone},
    folder,
    hierarchy::Hierarchy,
    leaf::Leaf,
    subtree,
};

/// The controllers that account for containers and limit them.
const USED: [&str; 7] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma"];

/// Which controllers the cgroups below a cgroup have.
const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// Between a leaf's name and the number of its repetition; no exec id contains it.
const REPETITION: char = '~';

/// The leaf of init, and how those of execs begin.
pub(crate) const INIT_LEAF: &str = "init";
pub(crate) const EXEC_LEAF: &str = "exec-";

/// The cgroup of a container: a folder that holds leaves, which hold the processes.
///
/// It is a description, of absolute paths: a process that deserialises it can do everything with
/// the cgroup that its maker could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerCgroup {
    root: PathBuf,
    path: PathBuf,
    /// Whether it was there before the container, and is to stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stays: bool,
}

impl ContainerCgroup {
    /// The cgroup at `relative` below the hierarchy's root. Nothing is read or made.
    ///
    /// # Errors
    /// [`Error::Path`] if `relative` is empty, absolute, or has a `..` in it.
    pub fn at(hierarchy: &Hierarchy, relative: &Path) -> Result<Self, Error> {
        let root = hierarchy.root().to_owned();
        let path = folder::below(&root, relative)?;
        Ok(Self {
            root,
            path,
            stays: false,
        })
    }

    /// As [`at`](Self::at), if there are no processes in it and it is no other container's.
    ///
    /// # Errors
    /// [`Error::Path`]; [`Error::Populated`]; [`Error::Claimed`]; [`Error::Io`].
    pub fn at_if_empty(
        hierarchy: &Hierarchy,
        relative: &Path,
        claim: &Claim,
    ) -> Result<Self, Error> {
        let mut cgroup = Self::at(hierarchy, relative)?;
        cgroup.stays = claim.look(&cgroup.path, || cgroup.populated())?;
        Ok(cgroup)
    }

    /// Makes the cgroup at `relative` below the hierarchy's root, and the ancestors that are
    /// missing, which are marked so that [`remove`](Self::remove) takes them away again.
    /// One that an earlier container left is made anew if there are no processes in it. One that
    /// is no container's is used, and stays.
    ///
    /// # Errors
    /// [`Error::Path`]; [`Error::Populated`] if the cgroup exists and holds processes;
    /// [`Error::Claimed`]; [`Error::Io`].
    pub fn create(hierarchy: &Hierarchy, relative: &Path, claim: &Claim) -> Result<Self, Error> {
        let cgroup = Self::at_if_empty(hierarchy, relative, claim)?;
        cgroup.make(claim)?;
        Ok(cgroup)
    }

    /// Makes the cgroup that [`at_if_empty`](Self::at_if_empty) has looked at.
    pub(super) fn make(&self, claim: &Claim) -> Result<(), Error> {
        // Before the cgroup is made: see `enable_controllers`.
        let settled = match self.path.parent() {
            Some(parent) => words(&parent.join(SUBTREE_CONTROL))?,
            None => Vec::new(),
        };
        claim.take(&self.path, &self.root, self.stays, || self.populated())?;
        let prepare = || {
            if self.stays {
                attach::detach(&self.path)?;
            }
            self.enable_controllers(&settled)
        };
        prepare().inspect_err(|_| {
            // The reason is what the caller gets.
            let _ = self.remove();
        })
    }

    /// Enables the controllers that account and limit for the container's cgroup. The kernel does so
    /// only from the root downwards, and not below a cgroup that holds processes: one that cannot
    /// be enabled is missing in [`controllers`](Self::controllers).
    ///
    /// A controller that another process is enabling is listed at once, without the kernel's lock, and
    /// its files come one by one (kernel/cgroup/cgroup.c, `cgroup_controllers_show`). The creation of
    /// a cgroup waits for that lock, so those that were `settled`, listed for its parent's children
    /// before it was made, are there. For others a write to the parent, even of what it has, waits.
    fn enable_controllers(&self, settled: &[String]) -> Result<(), Error> {
        let enabled = self.controllers()?;
        let mut available = words(&self.root.join("cgroup.controllers"))?;
        available.retain(|name| USED.contains(&name.as_str()));
        let is_there = |name: &String| enabled.contains(name) && settled.contains(name);
        // Those above it have what it has.
        if available.iter().all(is_there) {
            return Ok(());
        }
        let mut parents: Vec<&Path> = folder::ancestors(&self.path, &self.root).collect();
        parents.push(&self.root);
        for parent in parents.into_iter().rev() {
            let available = words(&parent.join("cgroup.controllers"))?;
            let wanted = available
                .iter()
                .filter(|name| USED.contains(&name.as_str()));
            let mut wanted: Vec<_> = wanted.map(|name| format!("+{name}")).collect();
            // On a host with version 1's hierarchies there are none.
            if wanted.is_empty() {
                break;
            }
            if Some(parent) != self.path.parent() {
                let enabled = words(&parent.join(SUBTREE_CONTROL))?;
                wanted.retain(|name| !enabled.iter().any(|enabled| *enabled == name[1..]));
            }
            // Together that is one change of the tree; alone, one that is refused does not hold
            // back the others.
            if wanted.is_empty() || enable(parent, &wanted.join(" ")) {
                continue;
            }
            for name in wanted {
                enable(parent, &name);
            }
        }
        Ok(())
    }

    /// The controllers that are enabled for it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn controllers(&self) -> Result<Vec<String>, Error> {
        words(&self.path.join("cgroup.controllers"))
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was there before the container, and stays when that is gone.
    pub fn stays(&self) -> bool {
        self.stays
    }

    /// Makes a leaf for a process: `init`, or `exec-ID`. An empty one of that name is reused;
    /// if what an earlier process left behind still runs in it, the new one is made beside it.
    ///
    /// # Errors
    /// [`Error::Path`] for a name that is not a file name, [`Error::Io`].
    pub fn add_leaf(&self, name: &str) -> Result<Leaf, Error> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0', REPETITION])
        {
            return Err(Error::Path(PathBuf::from(name)));
        }
        let mut path = self.path.join(name);
        let mut repetition = 1_u32;
        loop {
            match fs::create_dir(&path) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if !subtree::populated(&path)? {
                        break;
                    }
                }
                Err(error) => return Err(Error::io("make cgroup", &path)(error)),
            }
            repetition += 1;
            path = self.path.join(format!("{name}{REPETITION}{repetition}"));
        }
        Ok(Leaf::new(path))
    }

    /// The leaf of that name, whether it exists or not; the first of its repetitions.
    pub fn leaf(&self, name: &str) -> Leaf {
        Leaf::new(self.path.join(name))
    }

    /// Kills all processes of the container, including those that are forked meanwhile. The kernel
    /// does it in one step from 5.14 on; before that the processes are frozen and killed one by
    /// one. It does not wait for their end: [`events_fd`](Self::events_fd) reports it.
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroup does not exist.
    pub fn kill(&self) -> Result<(), Error> {
        subtree::kill(&self.path)
    }

    /// Sends a signal to every process of the container, and returns to how many. A process that is
    /// forked meanwhile may be missed. A pid that was reused by a process elsewhere is not
    /// signalled.
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroup does not exist.
    pub fn signal(&self, signal: i32) -> Result<usize, Error> {
        subtree::signal(&self.path, signal).map(|reached| reached.len())
    }

    /// The processes in the container, each with the name that its leaf was made with; the name
    /// is empty for one that was moved into the container's cgroup itself. A cgroup that is gone
    /// has none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self) -> Result<Vec<(u32, String)>, Error> {
        let mut found = Vec::new();
        subtree::for_each(&self.path, &mut |cgroup| {
            let leaf = cgroup
                .strip_prefix(&self.path)
                .ok()
                .and_then(|below| below.iter().next())
                .map(|first| first.to_string_lossy())
                .unwrap_or_default();
            let name = leaf.split(REPETITION).next().unwrap_or_default();
            let pids = subtree::own_pids(cgroup)?;
            found.extend(pids.into_iter().map(|pid| (pid, name.to_owned())));
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether there are processes in the container; zombies don't count. In a cgroup that is
    /// gone there are none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn populated(&self) -> Result<bool, Error> {
        subtree::populated(&self.path)
    }

    /// Opens `cgroup.events`, to be polled for `POLLPRI` and read by
    /// [`read_events`](super::read_events), before the first poll too.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn events_fd(&self) -> Result<File, Error> {
        let path = self.path.join("cgroup.events");
        File::open(&path).map_err(Error::io("open", &path))
    }

    /// Asks the kernel to freeze or to thaw everything in the container. It is done when
    /// `cgroup.events` reports it: see [`events_fd`](Self::events_fd).
    ///
    /// # Errors
    /// [`Error::Io`], with `NotFound` as its source before Linux 5.2 or if the cgroup does not
    /// exist.
    pub fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let file = "cgroup.freeze";
        if subtree::write(&self.path, file, if frozen { "1" } else { "0" })? {
            return Ok(());
        }
        Err(Error::io("write to", &self.path.join(file))(
            io::Error::from_raw_os_error(libc::ENOENT),
        ))
    }

    /// Whether everything in the container is frozen.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_frozen(&self) -> Result<bool, Error> {
        Ok(subtree::events(&self.path)?.frozen)
    }

    /// Removes the leaves, the cgroup itself, and the ancestors that were made for containers
    /// and are empty now. Of a cgroup that stays only the leaves and the device rules are removed.
    /// Idempotent.
    ///
    /// # Errors
    /// [`Error::Populated`] while there are processes in it; [`Error::Io`].
    pub fn remove(&self) -> Result<(), Error> {
        if self.stays {
            return self.give_back();
        }
        // Mostly there is this one leaf at most, and then nothing needs to be listed.
        subtree::remove_dir(&self.path.join(INIT_LEAF))?;
        subtree::remove(&self.path)?;
        folder::remove_ancestors(&self.path, &self.root)
    }

    fn give_back(&self) -> Result<(), Error> {
        let below = match subtree::children(&self.path) {
            Err(error) if error.is_gone() => return Ok(()),
            below => below?,
        };
        let is_leaf = |path: &&PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name.split(REPETITION).next().unwrap_or_default();
            name == INIT_LEAF || name.starts_with(EXEC_LEAF)
        };
        for leaf in below.iter().filter(is_leaf) {
            subtree::remove(leaf)?;
        }
        attach::detach(&self.path)?;
        claim::release(&self.path)
    }
}

fn enable(parent: &Path, controllers: &str) -> bool {
    subtree::write_existing(&parent.join(SUBTREE_CONTROL), controllers).is_ok()
}

/// The words in a file. One that does not exist has none: cgroups are removed at any time.
fn words(file: &Path) -> Result<Vec<String>, Error> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.split_whitespace().map(str::to_owned).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", file)(error)),
    }
}
