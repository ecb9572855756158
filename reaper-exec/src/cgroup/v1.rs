//! Cgroups of version 1: a hierarchy for each controller, or for some together.
//!
//! A container has one cgroup in each, without leaves: what processes are in it is version 2's
//! business where that is mounted too. They account and limit, and are what container tools look at
//! on such hosts. On a host without version 2 they also kill and freeze.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access, statfs};
use serde::{Deserialize, Serialize};

use super::{
    claim::{self, Claim},
    error::Error,
    folder, hierarchy, subtree,
};

/// `CGROUP_SUPER_MAGIC` of statfs(2).
const CGROUP_MAGIC: u64 = 0x0027_e0eb;

/// Where hosts mount the hierarchies, each in a folder named after its controllers.
const USUAL_PLACE: &str = "/sys/fs/cgroup";

/// What freezes and thaws, where the hierarchy has the freezer.
const FREEZER: &str = "freezer.state";

/// A mounted hierarchy of cgroup v1 that can be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1Hierarchy {
    root: PathBuf,
    controllers: Vec<String>,
}

impl V1Hierarchy {
    /// The hierarchies of this host.
    ///
    /// # Errors
    /// Files in `/proc` could not be read.
    pub fn find() -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        let mut mounts = None;
        for controllers in parse_own(&fs::read_to_string("/proc/self/cgroup")?) {
            let name = controllers.join(",");
            let name = name.strip_prefix("name=").unwrap_or(&name);
            let usual = Path::new(USUAL_PLACE).join(name);
            let root = match is_v1(&usual) {
                true => Some(usual),
                // Mountinfo can have thousands of lines.
                false => {
                    if mounts.is_none() {
                        mounts = Some(fs::read("/proc/self/mountinfo")?);
                    }
                    let lines = mounts.as_deref().unwrap_or_default();
                    mount_of(lines, &controllers).filter(|place| is_v1(place))
                }
            };
            if let Some(root) = root.filter(|root| access(root, Access::WRITE_OK).is_ok()) {
                found.push(Self { root, controllers });
            }
        }
        Ok(found)
    }

    /// A hierarchy of `controllers` at `root`, of which nothing is checked.
    pub fn at(root: &Path, controllers: &[&str]) -> Self {
        Self {
            root: root.to_owned(),
            controllers: controllers.iter().copied().map(str::to_owned).collect(),
        }
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it has the controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

fn is_v1(place: &Path) -> bool {
    // The type of the field differs between architectures.
    statfs(place).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|t| t == CGROUP_MAGIC))
}

/// The controllers of each hierarchy of version 1, from `/proc/PID/cgroup`. One that is named has
/// the controller `name=NAME`.
pub(crate) fn parse_own(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|controllers| !controllers.is_empty())
        .map(|controllers| controllers.split(',').map(str::to_owned).collect())
        .collect()
}

/// Where the hierarchy of `controllers` is mounted, as a whole.
pub(super) fn mount_of(mountinfo: &[u8], controllers: &[String]) -> Option<PathBuf> {
    mountinfo.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let (root, place) = (fields.nth(3)?, fields.next()?);
        let mut after = fields.skip_while(|&field| field != b"-").skip(1);
        let (filesystem, options) = (after.next()?, after.nth(1)?);
        let has = |name: &String| {
            options
                .split(|&byte| byte == b',')
                .any(|option| option == name.as_bytes())
        };
        (filesystem == b"cgroup" && root == b"/" && controllers.iter().all(has))
            .then(|| PathBuf::from(OsString::from_vec(hierarchy::unescape(place))))
    })
}

/// The cgroup of a container in one hierarchy. As [`ContainerCgroup`](super::ContainerCgroup) it is
/// a description that another process can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1Cgroup {
    root: PathBuf,
    path: PathBuf,
    controllers: Vec<String>,
    /// Whether it was there before the container, and is to stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stays: bool,
}

impl V1Cgroup {
    /// The cgroup at `relative` below the hierarchy's root. Nothing is read or made.
    ///
    /// # Errors
    /// [`Error::Path`] if `relative` is empty, absolute, or has a `..` in it.
    pub fn at(hierarchy: &V1Hierarchy, relative: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: folder::below(&hierarchy.root, relative)?,
            root: hierarchy.root.clone(),
            controllers: hierarchy.controllers.clone(),
            stays: false,
        })
    }

    /// As [`at`](Self::at), if there are no processes in it and it is no other container's.
    ///
    /// # Errors
    /// [`Error::Path`]; [`Error::Populated`]; [`Error::Claimed`]; [`Error::Io`].
    pub fn at_if_empty(
        hierarchy: &V1Hierarchy,
        relative: &Path,
        claim: &Claim,
    ) -> Result<Self, Error> {
        let mut cgroup = Self::at(hierarchy, relative)?;
        cgroup.stays = claim.look(&cgroup.path, || cgroup.populated())?;
        Ok(cgroup)
    }

    /// Makes it, as [`ContainerCgroup::create`](super::ContainerCgroup::create).
    ///
    /// # Errors
    /// [`Error::Path`]; [`Error::Populated`] if it exists and holds processes; [`Error::Claimed`];
    /// [`Error::Io`].
    pub fn create(hierarchy: &V1Hierarchy, relative: &Path, claim: &Claim) -> Result<Self, Error> {
        let cgroup = Self::at_if_empty(hierarchy, relative, claim)?;
        cgroup.make(claim)?;
        Ok(cgroup)
    }

    /// Makes the cgroup that [`at_if_empty`](Self::at_if_empty) has looked at.
    pub(super) fn make(&self, claim: &Claim) -> Result<(), Error> {
        claim.take(&self.path, &self.root, self.stays, || self.populated())?;
        match self.has("cpuset") {
            true => self.fill_cpuset().inspect_err(|_| {
                // The reason is what the caller gets.
                let _ = self.remove();
            }),
            false => Ok(()),
        }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this hierarchy has the controller.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// Moves the calling process into it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn join_self(&self) -> Result<(), Error> {
        let procs = self.path.join("cgroup.procs");
        subtree::write_existing(&procs, "0").map_err(Error::io("join cgroup", &self.path))
    }

    /// A new cpuset has neither processors nor memory nodes, and no process can join it then: it
    /// gets its parent's.
    pub(super) fn fill_cpuset(&self) -> Result<(), Error> {
        let mut cgroups: Vec<&Path> = folder::ancestors(&self.path, &self.root).collect();
        cgroups.insert(0, &self.path);
        for cgroup in cgroups.into_iter().rev() {
            let parent = cgroup.parent().unwrap_or(&self.root);
            for name in ["cpuset.cpus", "cpuset.mems"] {
                let read = |dir: &Path| {
                    let file = dir.join(name);
                    fs::read_to_string(&file).map_err(Error::io("read", &file))
                };
                if read(cgroup)?.trim().is_empty() {
                    let file = cgroup.join(name);
                    subtree::write_existing(&file, read(parent)?.trim())
                        .map_err(Error::io("write to", &file))?;
                }
            }
        }
        Ok(())
    }

    /// The processes in it. A cgroup that does not exist has none.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        subtree::pids(&self.path)
    }

    /// Whether there are processes in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn populated(&self) -> Result<bool, Error> {
        Ok(!self.pids()?.is_empty())
    }

    /// Sends a signal to every process in it, and returns to how many, as
    /// [`ContainerCgroup::signal`](super::ContainerCgroup::signal).
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroup does not exist.
    pub fn signal(&self, signal: i32) -> Result<usize, Error> {
        subtree::signal(&self.path, signal).map(|reached| reached.len())
    }

    /// Kills all processes in it: frozen ones, in the freezer's hierarchy, fork no more.
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroup does not exist.
    pub fn kill(&self) -> Result<(), Error> {
        let states = ["FROZEN", "THAWED"];
        subtree::kill_while_frozen(&self.path, FREEZER, states, subtree::signal)?;
        self.thaw()
    }

    /// Thaws all that is in it, in the freezer's hierarchy, whatever has frozen it: an admin, or the workload what
    /// is below. What is frozen does not end by SIGKILL.
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroup does not exist.
    pub fn thaw(&self) -> Result<(), Error> {
        subtree::for_each(&self.path, &mut |cgroup| {
            subtree::write(cgroup, FREEZER, "THAWED").map(drop)
        })
    }

    /// Asks the kernel to freeze or thaw what is in it, in the freezer's hierarchy, and returns
    /// whether that is done.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn freeze(&self, frozen: bool) -> Result<bool, Error> {
        let file = self.path.join(FREEZER);
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        subtree::write_existing(&file, wanted).map_err(Error::io("write to", &file))?;
        let state = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        Ok(state.trim() == wanted)
    }

    /// Removes it, and the ancestors that were made for containers and are empty. One that stays
    /// is given back. Idempotent.
    ///
    /// # Errors
    /// [`Error::Populated`] while there are processes in it; [`Error::Io`].
    pub fn remove(&self) -> Result<(), Error> {
        if self.stays {
            return claim::release(&self.path);
        }
        subtree::remove(&self.path)?;
        folder::remove_ancestors(&self.path, &self.root)
    }
}
