//! A node: a containerd of its own, on folders, sockets and cgroups of its own.

use std::{
    any::Any,
    env, fs,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
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
    runtime::{block_on, until},
    suite::{Suite, reaper_bin, suites},
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
            eprintln!("--- on {}", node.title);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                test(&node);
                leftovers::assert_none(&node);
            }));
            outcome.is_err().then(|| {
                node.show_logs();
                node.title.clone()
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
    suite: Suite,
    title: String,
    major: u32,
    version: String,
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
        let version = Command::new(suite.program("containerd"))
            .arg("--version")
            .output()
            .expect("ask containerd for its version");
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let (major, minor) = version_numbers(&version);
        for name in ["bin", "fifo", "logs", "work"] {
            fs::create_dir(dir.join(name)).expect("make a folder of the node");
        }
        fs::write(dir.join("config.toml"), config::render(&dir, major))
            .expect("write containerd's configuration");
        let node = Self {
            title: format!(
                "{suite} ({})",
                version.split_whitespace().nth(2).unwrap_or("?")
            ),
            suite,
            major,
            version: format!("{major}.{minor}"),
            marker,
            options,
            daemon: Mutex::new(None),
            channel: Mutex::new(None),
            dir,
        };
        node.start_containerd();
        node.import_images();
        node
    }

    /// The suite that its containerd is from.
    pub fn suite(&self) -> &Suite {
        &self.suite
    }

    /// The first two numbers of containerd's version, such as `1.6`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The first number of containerd's version.
    pub fn major(&self) -> u32 {
        self.major
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

    /// Starts containerd, again if it was stopped, and waits until it answers.
    pub fn start_containerd(&self) {
        let mut daemon = locked(&self.daemon);
        assert!(daemon.is_none(), "containerd is running already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("logs/containerd"))
            .expect("open containerd's log");
        let child = self
            .containerd_command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor of the log"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        *daemon = Some(child);
        drop(daemon);
        let channel = until("containerd answers on its socket", || {
            self.assert_running();
            let channel = block_on(containerd_client::connect(self.socket())).ok()?;
            let mut version = containerd_client::services::v1::version_client::VersionClient::new(
                channel.clone(),
            );
            block_on(version.version(())).ok()?;
            Some(channel)
        });
        *locked(&self.channel) = Some(channel);
        // It comes up last, and answers meanwhile that it is not initialized yet.
        until("the CRI answers", || self.cri().is_ready().then_some(()));
    }

    /// Stops containerd as an administrator would. What it runs goes on.
    pub fn stop_containerd(&self) {
        self.end_containerd(Signal::SIGTERM);
    }

    /// Kills containerd. What it runs goes on.
    pub fn kill_containerd(&self) {
        self.end_containerd(Signal::SIGKILL);
    }

    fn end_containerd(&self, signal: Signal) {
        let Some(mut child) = locked(&self.daemon).take() else {
            return;
        };
        *locked(&self.channel) = None;
        if let Some(process) = Process::find(child.id()) {
            process.signal(signal);
            until("containerd ends", || {
                child.try_wait().expect("wait for containerd")
            });
        }
    }

    fn containerd_command(&self) -> Command {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let paths = [reaper_bin(), self.suite.bin()]
            .into_iter()
            .chain(env::split_paths(&inherited));
        // setpriv makes containerd die with this process, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(self.suite.program("containerd"))
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .env(
                "PATH",
                env::join_paths(paths).expect("a PATH without colons in its parts"),
            )
            .env("REAPER_RUNTIME_ROOT", self.state_root())
            .env("REAPER_OVERLAY_ENABLED", self.options.overlay.to_string())
            .env("REAPER_OVERLAY_BASE", self.dir.join("overlay"))
            .env("REAPER_SHIM_LOG", self.dir.join("logs/shim"))
            .env("REAPER_RUNTIME_LOG", self.dir.join("logs/runtime"))
            .envs(self.options.env.iter().cloned());
        command
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

    fn assert_running(&self) {
        if let Some(daemon) = locked(&self.daemon).as_mut() {
            let ended = daemon.try_wait().expect("look at containerd");
            if let Some(status) = ended {
                self.show_logs();
                panic!("containerd ended: {status}");
            }
        }
    }

    fn show_logs(&self) {
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

/// Reads `containerd github.com/… 1.6.20~ds1 …`, where newer ones have `…/v2 2.1.9`.
fn version_numbers(text: &str) -> (u32, u32) {
    let numbers = |word: &str| {
        let mut parts = word.trim_start_matches('v').split('.');
        let mut number = || parts.next()?.parse().ok();
        Some((number()?, number()?))
    };
    text.split_whitespace()
        .find_map(numbers)
        .unwrap_or_else(|| panic!("no version in {text:?}"))
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long what a test ended may take to go away.
pub(crate) const SETTLE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::version_numbers;

    #[test]
    fn the_generation_of_a_containerd_is_read_from_its_version() {
        for (text, numbers) in [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 x",
                (1, 6),
            ),
            (
                "containerd github.com/containerd/containerd v1.7.24 x",
                (1, 7),
            ),
            (
                "containerd github.com/containerd/containerd/v2 2.1.9+unknown ",
                (2, 1),
            ),
        ] {
            assert_eq!(version_numbers(text), numbers);
        }
    }
}
