//! The cgroups of a container in all hierarchies.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    claim::Claim,
    container::ContainerCgroup,
    error::Error,
    hierarchy::Hierarchy,
    v1::{V1Cgroup, V1Hierarchy},
};

/// The hierarchies that are mounted on this host and can be written to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hierarchies {
    /// Version 2's.
    pub v2: Option<Hierarchy>,
    /// Version 1's: none on hosts with version 2 alone, all controllers' on others.
    pub v1: Vec<V1Hierarchy>,
}

impl Hierarchies {
    /// Finds them.
    ///
    /// # Errors
    /// Files in `/proc` could not be read.
    pub fn find() -> io::Result<Self> {
        Ok(Self {
            v2: Hierarchy::find()?,
            v1: V1Hierarchy::find()?,
        })
    }
}

/// The cgroups of a container, of the same path in all hierarchies.
///
/// Version 2's decides which processes belong to the container, where there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    #[serde(rename = "cgroup")]
    v2: Option<ContainerCgroup>,
    #[serde(default, rename = "cgroups_v1", skip_serializing_if = "Vec::is_empty")]
    v1: Vec<V1Cgroup>,
}

impl Cgroups {
    /// The cgroups at `relative`, if there are no processes in them and they are no other container's.
    /// Nothing is made.
    ///
    /// # Errors
    /// [`Error::Path`]; [`Error::Populated`]; [`Error::Claimed`]; [`Error::Io`].
    pub fn at_if_empty(
        hierarchies: &Hierarchies,
        relative: &Path,
        claim: &Claim,
    ) -> Result<Self, Error> {
        let v2 = hierarchies.v2.as_ref();
        let at = |hierarchy| V1Cgroup::at_if_empty(hierarchy, relative, claim);
        Ok(Self {
            v2: v2
                .map(|hierarchy| ContainerCgroup::at_if_empty(hierarchy, relative, claim))
                .transpose()?,
            v1: hierarchies
                .v1
                .iter()
                .map(at)
                .collect::<Result<Vec<_>, _>>()?,
        })
    }

    /// Makes the cgroups that [`at_if_empty`](Self::at_if_empty) has looked at. Where a hierarchy does not
    /// allow that, there is none in it, and the error is in the list.
    ///
    /// # Errors
    /// [`Error::Populated`]; [`Error::Claimed`]; [`Error::Io`] for other reasons than that the hierarchy
    /// is read-only or not this user's. What was made is removed.
    pub fn create(self, claim: &Claim) -> Result<(Self, Vec<Error>), Error> {
        let mut made = Self::default();
        let mut refused = Vec::new();
        match made.create_all(self, claim, &mut refused) {
            Ok(()) => Ok((made, refused)),
            Err(error) => {
                // The reason for undoing is what the caller gets.
                let _ = made.remove();
                Err(error)
            }
        }
    }

    /// The cgroups that a process is in, which another program has made, without those that this
    /// process is in as well. They are to be looked at only.
    ///
    /// # Errors
    /// Files in `/proc` could not be read.
    pub(crate) fn of_process(pid: u32) -> io::Result<Self> {
        let Hierarchies { v1, v2 } = Hierarchies::find()?;
        let own = std::fs::read_to_string("/proc/self/cgroup")?;
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mut found = Self::default();
        for line in text
            .lines()
            .filter(|line| !own.lines().any(|own| own == *line))
        {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let relative = Path::new(path.trim_start_matches('/'));
            // One that is outside of this process's cgroup namespace is no path.
            if controllers.is_empty() {
                let cgroup = v2.as_ref().map(|v2| ContainerCgroup::at(v2, relative));
                found.v2 = cgroup.and_then(Result::ok);
                continue;
            }
            let names: Vec<&str> = controllers.split(',').collect();
            let hierarchy = v1
                .iter()
                .find(|hierarchy| names.iter().all(|name| hierarchy.has(name)));
            let cgroup = hierarchy.map(|hierarchy| V1Cgroup::at(hierarchy, relative));
            found.v1.extend(cgroup.and_then(Result::ok));
        }
        Ok(found)
    }

    fn create_all(
        &mut self,
        planned: Self,
        claim: &Claim,
        refused: &mut Vec<Error>,
    ) -> Result<(), Error> {
        if let Some(cgroup) = planned.v2 {
            self.v2 = tolerate(cgroup.make(claim), refused)?.map(|()| cgroup);
        }
        for cgroup in planned.v1 {
            let made = tolerate(cgroup.make(claim), refused)?;
            self.v1.extend(made.map(|()| cgroup));
        }
        Ok(())
    }

    /// These, without version 2's.
    #[cfg(test)]
    pub(super) fn of_v1(v1: Vec<V1Cgroup>) -> Self {
        Self { v2: None, v1 }
    }

    /// Version 2's.
    pub fn v2(&self) -> Option<&ContainerCgroup> {
        self.v2.as_ref()
    }

    /// Version 1's, one for each hierarchy.
    pub fn v1(&self) -> &[V1Cgroup] {
        &self.v1
    }

    /// The one of version 1 that has `controller`.
    pub fn with_controller(&self, controller: &str) -> Option<&V1Cgroup> {
        self.v1.iter().find(|cgroup| cgroup.has(controller))
    }

    /// These, without those that another container has claimed since they were written down.
    pub(crate) fn without_lost(mut self, claim: &Claim) -> Self {
        self.v2 = self.v2.filter(|cgroup| !claim.is_lost(cgroup.path()));
        self.v1.retain(|cgroup| !claim.is_lost(cgroup.path()));
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.v2.is_none() && self.v1.is_empty()
    }

    /// The hierarchy that lists the processes where version 2 does not.
    fn lister(&self) -> Option<&V1Cgroup> {
        let freezer = self.with_controller("freezer");
        freezer.or_else(|| self.v1.first())
    }

    /// Kills all processes, as [`ContainerCgroup::kill`]. With version 1 alone they are frozen for
    /// it, where there is a freezer.
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroups do not exist.
    pub fn kill(&self) -> Result<(), Error> {
        match (&self.v2, self.lister()) {
            (Some(v2), _) => {
                v2.kill()?;
                self.thaw_v1()
            }
            (None, Some(v1)) => v1.kill(),
            (None, None) => Ok(()),
        }
    }

    /// Has version 1's freezer hold no process back from its end: see [`V1Cgroup::thaw`].
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroups do not exist.
    pub(crate) fn thaw_v1(&self) -> Result<(), Error> {
        let freezer = self.with_controller("freezer");
        freezer.map_or(Ok(()), V1Cgroup::thaw)
    }

    /// Sends a signal to every process, as [`ContainerCgroup::signal`].
    ///
    /// # Errors
    /// [`Error::Io`]. It is not an error if the cgroups do not exist.
    pub fn signal(&self, signal: i32) -> Result<usize, Error> {
        match (&self.v2, self.lister()) {
            (Some(v2), _) => v2.signal(signal),
            (None, Some(v1)) => v1.signal(signal),
            (None, None) => Ok(0),
        }
    }

    /// The processes, as [`ContainerCgroup::pids`]. With version 1 alone it is not known which exec
    /// they are of: they have no name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pids(&self) -> Result<Vec<(u32, String)>, Error> {
        match (&self.v2, self.lister()) {
            (Some(v2), _) => v2.pids(),
            (None, Some(v1)) => {
                let pids = v1.pids()?.into_iter();
                Ok(pids.map(|pid| (pid, String::new())).collect())
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Removes all of them, with the ancestors that were made for containers. Idempotent.
    ///
    /// # Errors
    /// The first of [`Error::Populated`] and [`Error::Io`]; the others are tried nevertheless.
    pub fn remove(&self) -> Result<(), Error> {
        let v2 = self.v2.iter().map(ContainerCgroup::remove);
        v2.chain(self.v1.iter().map(V1Cgroup::remove))
            .fold(Ok(()), Result::and)
    }
}

/// `None` for a cgroup that cannot be made because the hierarchy is read-only or not this user's.
fn tolerate<T>(created: Result<T, Error>, refused: &mut Vec<Error>) -> Result<Option<T>, Error> {
    match created {
        Ok(cgroup) => Ok(Some(cgroup)),
        Err(error) if error.is_refused() => {
            refused.push(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
