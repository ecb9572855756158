//! A node: a containerd of its own, on folders, sockets and cgroups of its own.

mod daemon;
mod network;

use std::{
    any::Any,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{self, Child, Command},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use containerd_client::tonic::transport::Channel;
use nix::sys::{prctl, signal::Signal};

use crate::{
    Options, config,
    image::{self, PAUSE},
    leftovers,
    procfs::{self, Process},
    runtime::until,
    suite::{Suite, suites},
};

/// How much of each log a failed test shows.
const LOG_LINES: usize = 60;

/// Runs a test on a node for each containerd, and checks that it left nothing behind.
pub fn on_each(test: impl Fn(&Node)) {
    on_each_with(&Options::default(), test);
}

/// Runs a test on an unusual node for each containerd, and checks that it left nothing behind.
pub fn on_each_with(options: &Options, test: impl Fn(&Node)) {
    let failed: Vec<String> = suites()
        .into_iter()
        .filter_map(|suite| {
            let node = Node::start(suite, options.clone());
            eprintln!("--- on {}", node.title());
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                test(&node);
                leftovers::assert_none(&node);
            }));
            outcome.is_err().then(|| {
                node.show_logs();
                node.title().to_owned()
            })
        })
        .collect();
    assert!(failed.is_empty(), "failed on {}", failed.join(", "));
}

/// A node: a containerd of its own, on folders, sockets and cgroups of its own. It ends, with all
/// that it runs, when this is dropped, and with this process at the latest.
///
/// containerd dies with the thread that started it, so start and restart it from the test's own.
#[derive(Debug)]
pub struct Node {
    release: Mutex<&'static Release>,
    dir: PathBuf,
    marker: String,
    options: Options,
    daemon: Mutex<Option<Child>>,
    channel: Mutex<Option<Channel>>,
}

impl Node {
    /// Starts a suite's containerd, and imports the tests' images.
    pub fn start(suite: Suite, options: Options) -> Self {
        // What loses its parent comes to this process, and so is seen at the end.
        prctl::set_child_subreaper(true).expect("become a subreaper");
        let dir = tempfile::Builder::new()
            .prefix("rt")
            // On /run, which is the host's own also over an overlay; short, for socket paths.
            .tempdir_in("/run")
            .expect("make a private folder in /run")
            .keep();
        let marker = dir
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        for name in ["bin", "fifo", "logs", "work"] {
            fs::create_dir(dir.join(name)).expect("make a folder of the node");
        }
        fs::write(dir.join(config::IN_POD_FILE), "monitor_cgroup = \"pod\"\n")
            .expect("write a configuration of Reaper");
        let node = Self {
            release: Mutex::new(Release::of(suite)),
            marker,
            options,
            daemon: Mutex::new(None),
            channel: Mutex::new(None),
            dir,
        };
        if node.options.own_network {
            network::make(&node.network());
        }
        node.write_config();
        node.start_containerd();
        node.import_images();
        node
    }

    /// Replaces containerd by that of another suite, as an administrator would: what runs goes on.
    pub fn upgrade_containerd(&self, suite: Suite) {
        self.stop_containerd();
        *locked(&self.release) = Release::of(suite);
        self.write_config();
        self.start_containerd();
    }

    /// Takes all from the node that the end of its power takes: processes but for those of `spared`, mounts,
    /// cgroups, and what was on filesystems in memory. containerd is to be started again.
    pub fn lose_power(&self, spared: &[u32]) {
        self.kill_containerd();
        leftovers::end_processes(spared);
        leftovers::unmount(self);
        leftovers::remove_cgroups(self);
        for name in ["state", "reaper", "overlay"] {
            let folder = self.dir.join(name);
            if folder.exists() {
                fs::remove_dir_all(folder).expect("empty what was in memory");
            }
        }
    }

    fn release(&self) -> &'static Release {
        *locked(&self.release)
    }

    fn title(&self) -> &str {
        &self.release().title
    }

    fn write_config(&self) {
        let mut text = config::render(&self.dir, self.major(), &self.options);
        if self.options.installed {
            text = config::install(&self.dir, &text);
        }
        fs::write(self.dir.join("config.toml"), text).expect("write containerd's configuration");
    }

    /// The suite that its containerd is from.
    pub fn suite(&self) -> &Suite {
        &self.release().suite
    }

    /// The first two numbers of containerd's version, such as `1.6`.
    pub fn version(&self) -> &str {
        &self.release().version
    }

    /// The first number of containerd's version.
    pub fn major(&self) -> u32 {
        self.release().major
    }

    /// The private folder. Below `/run`, so workloads see it as it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A folder for a test's own files.
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Part of every name on this node: the namespace of `ctr`, and the parent of its cgroups.
    pub fn marker(&self) -> &str {
        &self.marker
    }

    /// A name that is found again in cgroups, mounts and processes.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.marker)
    }

    /// The runtime that `ctr` is told: Reaper, unless `REAPER_TEST_RUNTIME` names a yardstick.
    pub fn runtime(&self) -> &'static str {
        if is_yardstick() {
            "io.containerd.runc.v2"
        } else {
            "io.containerd.reaper.v2"
        }
    }

    /// The handler that a pod names: Reaper's, unless `REAPER_TEST_RUNTIME` names a yardstick.
    pub fn handler(&self) -> &'static str {
        if is_yardstick() { "runc" } else { "reaper-v2" }
    }

    /// Reaper's state root.
    pub fn state_root(&self) -> PathBuf {
        self.dir.join("reaper")
    }

    /// Where containerd's bundles of a namespace are.
    pub fn bundles(&self, namespace: &str) -> PathBuf {
        self.dir
            .join("state/io.containerd.runtime.v2.task")
            .join(namespace)
    }

    /// containerd's socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("grpc.sock")
    }

    /// A connection to containerd.
    pub fn channel(&self) -> Channel {
        locked(&self.channel)
            .clone()
            .expect("containerd is running")
    }

    /// containerd's process, while it runs.
    pub fn containerd(&self) -> Option<Process> {
        locked(&self.daemon)
            .as_ref()
            .and_then(|daemon| Process::find(daemon.id()))
    }

    /// The shims of this node.
    pub fn shims(&self) -> Vec<Process> {
        procfs::descendants(process::id())
            .into_iter()
            .filter(|process| process.state != 'Z' && process.name.starts_with("containerd-shim"))
            .filter(|process| process.command_line().contains(&self.marker))
            // A monitor is the same program, below its shim.
            .filter(|process| {
                Process::find(process.parent)
                    .is_none_or(|parent| !parent.name.starts_with("containerd-shim"))
            })
            .collect()
    }

    /// Makes the parent of this node's cgroups, which a kubelet wants to find.
    pub(crate) fn make_cgroup(&self) {
        for hierarchy in leftovers::hierarchies() {
            fs::create_dir_all(hierarchy.join(&self.marker)).expect("make a cgroup");
        }
    }

    fn import_images(&self) {
        let archive = self.dir.join("images.tar");
        image::write_archive(&archive).expect("write the image archive");
        let archive = archive.to_str().expect("a path in UTF-8");
        for namespace in [self.marker.as_str(), "k8s.io"] {
            self.ctr_in(namespace, &["image", "import", archive])
                .assert_success();
        }
        until("the CRI knows the imported images", || {
            self.cri()
                .images()
                .iter()
                .any(|name| name == PAUSE)
                .then_some(())
        });
    }

    pub(crate) fn show_logs(&self) {
        for entry in fs::read_dir(self.dir.join("logs"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let text = fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| !line.contains("loading plugin"))
                .collect();
            let first = lines.len().saturating_sub(LOG_LINES);
            eprintln!(
                "--- the end of {}\n{}",
                entry.path().display(),
                lines[first..].join("\n")
            );
        }
    }
}

/// A containerd, and what it says of itself.
#[derive(Debug)]
struct Release {
    suite: Suite,
    title: String,
    major: u32,
    version: String,
}

impl Release {
    /// A node's is replaced while others know it: it stays for as long as the process.
    fn of(suite: Suite) -> &'static Self {
        let version = Command::new(suite.program("containerd"))
            .arg("--version")
            .output()
            .expect("ask containerd for its version");
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let (major, minor) = daemon::version_numbers(&version);
        Box::leak(Box::new(Self {
            title: format!(
                "{suite} ({})",
                version.split_whitespace().nth(2).unwrap_or("?")
            ),
            suite,
            major,
            version: format!("{major}.{minor}"),
        }))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let signal = if thread::panicking() {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        };
        // What fails here must not keep the rest from being cleaned up.
        let steps: [&dyn Fn(); 2] = [&|| self.end_containerd(signal), &|| leftovers::clear(self)];
        for step in steps {
            if let Err(reason) = catch_unwind(AssertUnwindSafe(step)) {
                eprintln!("while cleaning up: {}", message(reason.as_ref()));
            }
        }
    }
}

/// What a panic said.
fn message(reason: &(dyn Any + Send)) -> &str {
    reason
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| reason.downcast_ref::<&str>().copied())
        .unwrap_or("a panic")
}

/// Whether the rig is being tried out with containerd's own runtime instead of Reaper.
pub fn is_yardstick() -> bool {
    env::var_os("REAPER_TEST_RUNTIME").is_some_and(|runtime| runtime == "runc")
}

/// Whether workloads are real containers, which see of the node what their bundles mount: with a
/// yardstick, and where `REAPER_RUNTIME_PATH` names a runtime for Reaper to drive.
pub fn makes_containers() -> bool {
    is_yardstick() || env::var_os("REAPER_RUNTIME_PATH").is_some()
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long what a test ended may take to go away.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);
