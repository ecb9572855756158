//! The cgroup of a pod's monitors.
//!
//! It is beside the cgroups of the pod's containers, in every hierarchy, and has no limits: what is in it is
//! charged to the pod, and to none of the containers. In the pod's own cgroup no process may be, where
//! controllers are enabled for those below it.
//!
//! No process can remove the cgroup that it is in. So the process that joined moves back when it ends, and takes
//! along what else is left, such as a daemon that a hook has started: the kubelet, which removes the pod's cgroup, kills what
//! is in it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    error::Error,
    folder,
    hierarchy::Hierarchy,
    set::Hierarchies,
    subtree,
    systemd::Scope,
    v1::{V1Cgroup, V1Hierarchy},
};
use crate::procfs;

/// How often processes are moved out before a cgroup that gets new ones is left.
const ROUNDS: usize = 16;

/// How the name of a scope ends.
const SCOPE: &str = ".scope";

/// The file that lists a cgroup's processes, and takes new ones.
const PROCS: &str = "cgroup.procs";

/// The cgroup of a pod's monitors, in all hierarchies.
#[derive(Debug, Clone)]
pub struct MonitorCgroup {
    /// Where systemd is the manager.
    scope: Option<Scope>,
    places: Vec<Place>,
}

/// It in one hierarchy.
#[derive(Debug, Clone)]
struct Place {
    root: PathBuf,
    path: PathBuf,
    /// `None` in version 2's.
    v1: Option<V1Hierarchy>,
}

/// Where a process was before it joined a [`MonitorCgroup`].
#[derive(Debug, Clone)]
pub struct Origin(Vec<PathBuf>);

impl MonitorCgroup {
    /// The cgroup `name` beside that of a container, whose path below the hierarchies' roots is `container`.
    /// In a slice of systemd it is the scope of that name, else a folder. Nothing is made. `None` if the
    /// container's is not below another.
    ///
    /// # Errors
    /// [`Error::Path`] if `container` is absolute, or has a `..` in it.
    pub fn beside(
        hierarchies: &Hierarchies,
        container: &Path,
        name: &str,
    ) -> Result<Option<Self>, Error> {
        let Some(pod) = container.parent().filter(|pod| *pod != Path::new("")) else {
            return Ok(None);
        };
        let unit = pod.join(format!("{name}{SCOPE}"));
        let scope = Scope::of(&unit);
        let relative = match scope {
            Some(_) => unit,
            None => pod.join(name),
        };
        let v2 = hierarchies.v2.iter().map(|v2| (v2.root(), None));
        let v1 = hierarchies.v1.iter().map(|v1| (v1.root(), Some(v1)));
        let place = |(root, v1): (&Path, Option<&V1Hierarchy>)| {
            Ok(Place {
                root: root.to_owned(),
                path: folder::below(root, &relative)?,
                v1: v1.cloned(),
            })
        };
        let places = v2.chain(v1).map(place).collect::<Result<_, Error>>()?;
        Ok(Some(Self { scope, places }))
    }

    /// Those beside the cgroup of a container that exist in any hierarchy and have a name for which `is_wanted`
    /// holds, with their names.
    ///
    /// # Errors
    /// As of [`beside`](Self::beside); [`Error::Io`] for a folder that cannot be listed.
    pub fn find_beside(
        hierarchies: &Hierarchies,
        container: &Path,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(String, Self)>, Error> {
        let Some(pod) = container.parent().filter(|pod| *pod != Path::new("")) else {
            return Ok(Vec::new());
        };
        let v2 = hierarchies.v2.iter().map(Hierarchy::root);
        let v1 = hierarchies.v1.iter().map(V1Hierarchy::root);
        let mut names = BTreeSet::new();
        for root in v2.chain(v1) {
            let found = match subtree::children(&folder::below(root, pod)?) {
                Err(error) if error.is_gone() => Vec::new(),
                found => found?,
            };
            let found = found.iter().filter_map(|path| path.file_name()?.to_str());
            let found = found.map(|name| name.strip_suffix(SCOPE).unwrap_or(name));
            names.extend(found.filter(|name| is_wanted(name)).map(str::to_owned));
        }
        let at = |name: String| {
            let cgroup = Self::beside(hierarchies, container, &name)?;
            Ok(cgroup.map(|cgroup| (name, cgroup)))
        };
        names
            .into_iter()
            .filter_map(|name| at(name).transpose())
            .collect()
    }

    /// Its folders, of which each may exist or not.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.places.iter().map(|place| place.path.as_path())
    }

    /// Where this process is now.
    ///
    /// # Errors
    /// `/proc/self/cgroup` could not be read.
    pub fn origin(&self) -> io::Result<Origin> {
        let text = fs::read_to_string("/proc/self/cgroup")?;
        Ok(Origin(
            self.places
                .iter()
                .map(|place| place.find_own(&text))
                .collect(),
        ))
    }

    /// Makes it and moves this process into it, so that all that this process starts is born there. Returns
    /// where the process was.
    ///
    /// # Errors
    /// [`Error::Systemd`]; [`Error::Io`]. The process is where it was then, and nothing is left.
    pub fn join(&self) -> Result<Origin, Error> {
        let origin = self
            .origin()
            .map_err(Error::io("find the cgroups of", Path::new("/proc/self")))?;
        self.join_all().inspect_err(|_| {
            // The reason is what the caller gets.
            let _ = self.remove(&origin, Duration::ZERO);
        })?;
        Ok(origin)
    }

    fn join_all(&self) -> Result<(), Error> {
        if let Some(scope) = &self.scope {
            scope.start(std::process::id())?;
        }
        self.places.iter().try_for_each(Place::join)
    }

    /// Moves this process back.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn leave(&self, origin: &Origin) -> Result<(), Error> {
        let own = std::process::id();
        for (place, back) in self.places.iter().zip(&origin.0) {
            if place.pids()?.contains(&own) {
                place.expel(own, back)?;
            }
        }
        Ok(())
    }

    /// The processes in it.
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if it does not exist.
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        let mut found = Vec::new();
        for place in &self.places {
            found.extend(place.pids()?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Removes it, and the ancestors that were made for it: [leaves](Self::leave) it, waits up to `limit` for
    /// the other processes to end, and moves those that have not to `origin`. Idempotent.
    ///
    /// # Errors
    /// The first of [`Error::Populated`] and [`Error::Io`]; the other hierarchies are tried nevertheless.
    pub fn remove(&self, origin: &Origin, limit: Duration) -> Result<(), Error> {
        self.leave(origin)?;
        wait_for_ends(&self.pids()?, limit);
        let all = self.places.iter().zip(&origin.0);
        all.map(|(place, back)| place.remove(back, self.scope.is_some()))
            .fold(Ok(()), Result::and)
    }
}

impl Place {
    /// Where a process is in this hierarchy whose `/proc/PID/cgroup` has this text. One that is outside of
    /// what is mounted is at the root.
    fn find_own(&self, text: &str) -> PathBuf {
        let is_this = |controllers: &str| match &self.v1 {
            None => controllers.is_empty(),
            Some(v1) => controllers.split(',').all(|name| v1.has(name)),
        };
        let path = text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            is_this(controllers).then_some(Path::new(path.trim_start_matches('/')))
        });
        path.and_then(|path| folder::below(&self.root, path).ok())
            .unwrap_or_else(|| self.root.clone())
    }

    fn join(&self) -> Result<(), Error> {
        if folder::make(&self.path, &self.root)? {
            folder::mark(&self.path)?;
        }
        if let Some(v1) = self.v1.as_ref().filter(|v1| v1.has("cpuset")) {
            let relative = self.path.strip_prefix(&self.root);
            V1Cgroup::at(v1, relative.unwrap_or(&self.path))?.fill_cpuset()?;
        }
        subtree::write_existing(&self.path.join(PROCS), "0")
            .map_err(Error::io("join cgroup", &self.path))
    }

    fn pids(&self) -> Result<Vec<u32>, Error> {
        match subtree::own_pids(&self.path) {
            Err(error) if error.is_gone() => Ok(Vec::new()),
            pids => pids,
        }
    }

    /// Moves a process out, to the root if the cgroup `back` takes it no more. One that has ended needs no move.
    fn expel(&self, pid: u32, back: &Path) -> Result<(), Error> {
        let to = |cgroup: &Path| {
            let file = cgroup.join(PROCS);
            subtree::write_existing(&file, &pid.to_string()).map_err(Error::io("write to", &file))
        };
        let ended = |error: &Error| match error {
            Error::Io { source, .. } => source.raw_os_error() == Some(libc::ESRCH),
            _ => false,
        };
        let moved = to(back).or_else(|error| match ended(&error) {
            true => Err(error),
            false => to(&self.root),
        });
        match moved {
            Err(error) if ended(&error) => Ok(()),
            moved => moved,
        }
    }

    fn remove(&self, back: &Path, is_scope: bool) -> Result<(), Error> {
        // What systemd has made it removes when it is empty.
        let is_systemds = is_scope && !folder::is_marked(&self.path);
        for _ in 0..ROUNDS {
            for pid in self.pids()? {
                self.expel(pid, back)?;
            }
            if is_systemds {
                if self.pids()?.is_empty() {
                    return Ok(());
                }
            } else if subtree::remove_dir(&self.path)? {
                return folder::remove_ancestors(&self.path, &self.root);
            }
        }
        Err(Error::Populated(self.path.clone()))
    }
}

/// Waits until these processes have ended, up to `limit`.
fn wait_for_ends(pids: &[u32], limit: Duration) {
    let deadline = Instant::now() + limit;
    // Before Linux 5.3 there are no such descriptors, and nothing is waited for.
    let opened = pids.iter().filter_map(|&pid| procfs::pidfd_of(pid).ok());
    let waiting: Vec<OwnedFd> = opened.collect();
    let ends = |process: &OwnedFd| loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], left) {
            Err(Errno::EINTR) => {}
            ended => return ended == Ok(1),
        }
    };
    // Those that are still there will be moved.
    let _ = waiting.iter().all(ends);
}
