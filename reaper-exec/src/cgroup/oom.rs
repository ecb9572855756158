//! The kernel's kills for lack of memory.
//!
//! Version 2 reports each by a change of `memory.events`. Version 1 signals an eventfd, but before
//! the kill, and in all cgroups below the one whose limit is met; so what counts is always the
//! counter of the container's own cgroup. Version 1 counts in the cgroup of the process that is killed, which may
//! be one that the workload has made below.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::FileExt as _,
    },
    path::Path,
};

use nix::poll::PollFlags;
use rustix::event::{EventfdFlags, eventfd};

use super::{error::Error, set::Cgroups, stats::keyed, subtree};

/// What is polled for kills.
#[derive(Debug)]
pub(crate) enum OomNotifier {
    /// An eventfd.
    V1(File),
    /// `memory.events`.
    V2(File),
}

impl OomNotifier {
    /// The descriptor to poll, and for what.
    pub(crate) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::V1(event) => (event.as_fd(), PollFlags::POLLIN),
            Self::V2(events) => (events.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Has the next poll wait again. `false` if it would not: the cgroup was removed, and
    /// the files are ready for ever then.
    pub(crate) fn acknowledge(&mut self) -> bool {
        let mut buffer = [0; 512];
        // The counter is read from elsewhere.
        let read = match self {
            Self::V1(event) => event.read(&mut buffer[..8]),
            Self::V2(events) => events.read_at(&mut buffer, 0),
        };
        // An eventfd is signalled once for a removal, and is not ready after that.
        read.is_ok() || matches!(self, Self::V1(_))
    }

    /// Whether a kill may follow its notice.
    pub(crate) fn is_early(&self) -> bool {
        matches!(self, Self::V1(_))
    }
}

impl Cgroups {
    /// How many processes the kernel has killed for lack of memory. `None` where no hierarchy counts.
    pub fn oom_kills(&self) -> Option<u64> {
        let count = |path: &Path| {
            let text = fs::read_to_string(path).ok()?;
            keyed(&text).get("oom_kill").copied()
        };
        let Some(cgroup) = self.with_controller("memory") else {
            return count(&self.v2()?.path().join("memory.events"));
        };
        let mut kills = None;
        // One that goes meanwhile takes its counter along.
        let _ = subtree::for_each(cgroup.path(), &mut |cgroup| {
            if let Some(more) = count(&cgroup.join("memory.oom_control")) {
                kills = Some(kills.unwrap_or(0) + more);
            }
            Ok(())
        });
        kills
    }

    /// Asks the kernel to report kills. `None` where no hierarchy counts them.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn oom_notifier(&self) -> Result<Option<OomNotifier>, Error> {
        if let Some(cgroup) = self.with_controller("memory") {
            let control = cgroup.path().join("memory.oom_control");
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|error| Error::io("make an eventfd for", &control)(error.into()))?;
            let opened = File::open(&control).map_err(Error::io("open", &control))?;
            let register = cgroup.path().join("cgroup.event_control");
            let line = format!("{} {}", event.as_raw_fd(), opened.as_raw_fd());
            subtree::write_existing(&register, &line).map_err(Error::io("write to", &register))?;
            return Ok(Some(OomNotifier::V1(File::from(event))));
        }
        let Some(cgroup) = self.v2() else {
            return Ok(None);
        };
        let path = cgroup.path().join("memory.events");
        match File::open(&path) {
            Ok(events) => {
                let mut notifier = OomNotifier::V2(events);
                // A file that was never read counts as changed.
                notifier.acknowledge();
                Ok(Some(notifier))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::poll::{PollFd, PollTimeout, poll};

    use super::*;
    use crate::{
        cgroup::{Claim, ContainerCgroup, Hierarchy},
        procfs,
    };

    #[test]
    fn a_removed_cgroup_is_told_from_one_that_has_news() {
        let Some(hierarchy) = Hierarchy::find().expect("mountinfo") else {
            eprintln!("not tried: no hierarchy of version 2");
            return;
        };
        let claim = Claim::new(
            procfs::identify(std::process::id()).expect("a process"),
            true,
        );
        let name = format!("reaper-exec-test-oom-{}", std::process::id());
        let cgroup = ContainerCgroup::create(&hierarchy, Path::new(&name), &claim);
        let cgroup = cgroup.expect("a cgroup");
        // Of each cgroup, and reports changes as `memory.events` does.
        let events = cgroup.events_fd().expect("events");
        let mut notifier = OomNotifier::V2(events);
        assert!(notifier.acknowledge());
        let is_ready = |notifier: &OomNotifier| {
            let (file, flags) = notifier.interest();
            poll(&mut [PollFd::new(file, flags)], PollTimeout::ZERO).expect("poll") > 0
        };
        assert!(!is_ready(&notifier));
        cgroup.remove().expect("remove");
        assert!(is_ready(&notifier));
        assert!(!notifier.acknowledge());
        assert!(is_ready(&notifier), "it is for ever");
    }
}
