//! What all measurements need: a folder on a tmpfs, bundles, the programs, an event server.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use containerd_shim_protos::Client;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        signal::Signal,
        statfs::{TMPFS_MAGIC, statfs},
    },
};
use reaper_tests::{
    procfs,
    runtime::until_within,
    suite::{Suite, suites},
};
use tempfile::TempDir;

use crate::{
    bundle::Bundles,
    events::EventServer,
    report::{Report, Samples, Unit},
};

/// The folder with Reaper's binaries: that of this program.
pub(crate) fn bin_dir() -> PathBuf {
    if let Some(dir) = env::var_os("REAPER_BIN_DIR") {
        return dir.into();
    }
    let own = env::current_exe().expect("find this program");
    own.parent().expect("a program in a folder").to_owned()
}

/// A binary of Reaper.
pub(crate) fn binary(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(
        path.exists(),
        "no {}: run cargo build --release --workspace --bins",
        path.display()
    );
    path
}

/// The containerd to compare with: that of the newest suite.
pub(crate) fn newest_suite() -> Suite {
    suites()
        .pop()
        .expect("REAPER_SUITES names at least one suite")
}

/// A folder on a tmpfs, short for the sake of sockets.
pub(crate) fn tmpfs_dir() -> TempDir {
    let parent = Path::new("/dev/shm");
    let filesystem = statfs(parent).expect("look at /dev/shm").filesystem_type();
    assert_eq!(
        filesystem, TMPFS_MAGIC,
        "/dev/shm is to be a tmpfs, for the state"
    );
    tempfile::Builder::new()
        .prefix("rb")
        .tempdir_in(parent)
        .expect("make a folder in /dev/shm")
}

/// Runs something in a mount namespace of its own without cgroup v2 beside v1: on such hybrid
/// hosts crun refuses to work otherwise.
pub(crate) fn without_hybrid<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mounts");
            mount(
                None::<&str>,
                "/",
                None::<&str>,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                None::<&str>,
            )
            .expect("make the mounts private");
            let hybrid = Path::new("/sys/fs/cgroup/unified");
            if hybrid.exists() {
                umount2(hybrid, MntFlags::MNT_DETACH).expect("unmount cgroup v2");
            }
            work()
        });
        worker.join().expect("a worker that does not panic")
    })
}

/// A shim to be driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shim {
    Reaper,
    Runc,
}

impl Shim {
    pub(crate) const BOTH: [Self; 2] = [Self::Reaper, Self::Runc];

    /// Whether its containers need a root filesystem and namespaces.
    pub(crate) fn contains(self) -> bool {
        self == Self::Runc
    }

    /// The report of times with each of [`BOTH`](Self::BOTH), and the milliseconds that Reaper is to take at most.
    pub(crate) fn compare(title: &str, goal: f64, times: &[Samples; 2]) -> Report {
        let mut report = Report::new(title);
        let [reaper, runc] = times;
        report.figure(Self::Reaper.name(), Unit::Milliseconds, reaper.clone());
        report.goal(goal);
        report.figure(Self::Runc.name(), Unit::Milliseconds, runc.clone());
        report.ratio("Reaper / runc's shim", reaper, runc);
        report
    }

    /// What it is called in a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reaper => "Reaper",
            Self::Runc => "runc's shim",
        }
    }

    /// Its program.
    pub(crate) fn program(self) -> PathBuf {
        match self {
            Self::Reaper => binary("containerd-shim-reaper-v2"),
            Self::Runc => newest_suite().program("containerd-shim-runc-v2"),
        }
    }
}

/// What driving shims without containerd needs.
pub(crate) struct Rig {
    pub(crate) bundles: Bundles,
    pub(crate) events: EventServer,
    pub(crate) clients: Mutex<HashMap<String, Client>>,
    marker: String,
    // Last, so that it is removed after all that lies in it.
    dir: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let dir = tmpfs_dir();
        let marker = format!("reaper-bench-{}", process::id());
        Self {
            bundles: Bundles::new(dir.path(), &marker),
            events: EventServer::start(&dir.path().join("events.sock")),
            clients: Mutex::default(),
            marker,
            dir,
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The containerd namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.marker
    }

    /// An id that no other container of this program has.
    pub(crate) fn id(&self, name: &str) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        // After a measurement that failed half-way there are shims and workloads.
        until_within("all that was started ends", Duration::from_secs(10), || {
            procfs::reap_orphans(&[]);
            let left = procfs::descendants(process::id());
            for process in &left {
                process.signal(Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
    }
}
