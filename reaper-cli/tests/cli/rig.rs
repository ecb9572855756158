//! A state root, a bundle, and the program.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::Once,
};

use nix::sys::signal::{SigHandler, Signal, signal};
use serde_json::Value;

/// Has this process, and the programs that it starts, heed signals that a shell has it ignore which
/// starts it in the background: the program would leave them ignored, as its caller wants.
fn heed_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for number in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: SIG_DFL is no handler that could run.
            #[allow(unsafe_code)]
            unsafe { signal(number, SigHandler::SigDfl) }.unwrap();
        }
    });
}

/// A private state root. Whatever is left in it at the end is removed, and a test that succeeded
/// must have left nothing in the root's folder afterwards.
pub(crate) struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::configured(tempfile::tempdir().unwrap(), "enabled = false\n")
    }

    /// The same with overlays, below a base of its own, as they are by default.
    pub(crate) fn with_overlay() -> Self {
        let dir = tempfile::tempdir_in("/run").unwrap();
        let base = format!("base = {:?}\n", dir.path().join("base"));
        Self::configured(dir, &base)
    }

    /// From now on the configuration names this store.
    pub(crate) fn choose_store(&self, store: &str) {
        self.configure(&format!("store = {store:?}\n"), "");
    }

    /// From now on the configuration has these settings before its sections, and these lines behind all.
    pub(crate) fn configure(&self, settings: &str, last: &str) {
        let path = self.path("config.toml");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{settings}{config}{last}")).unwrap();
    }

    /// The logs that there are.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("logs")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn configured(dir: tempfile::TempDir, overlay: &str) -> Self {
        heed_signals();
        let logs = dir.path().join("logs");
        let config = format!("[overlay]\n{overlay}\n[log]\noutput = {logs:?}\n");
        fs::write(dir.path().join("config.toml"), config).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// The program with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reaper-runtime"));
        command
            .arg("--root")
            .arg(self.root())
            .arg("--config")
            .arg(self.path("config.toml"));
        command.args(args).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("REAPER_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Calls the program and waits for it.
    pub(crate) fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The same, where it must succeed: what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(
            output.status.success(),
            "{args:?}: {}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for a call whose streams the container keeps: they are nobody's.
    pub(crate) fn quietly(&self, args: &[&str]) {
        let status = self
            .command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success(), "{args:?}");
    }

    /// The same, where it must fail with this code: the one line that it said.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.call(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
        assert!(error.starts_with("reaper-runtime: "), "{args:?}: {error}");
        error
    }

    /// Makes the bundle `name`, whose process is this JSON.
    pub(crate) fn bundle(&self, name: &str, process: &Value) -> String {
        self.bundle_with(name, process, &serde_json::json!({}))
    }

    /// The same, with these fields beside its process.
    pub(crate) fn bundle_with(&self, name: &str, process: &Value, fields: &Value) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        let mut config = serde_json::json!({ "process": process });
        let fields = fields.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(fields);
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The program with `args`, where `prepare`, a line of shell, has been done to a private copy of the mounts.
    pub(crate) fn command_where(&self, prepare: &str, args: &[&str]) -> Command {
        self.command_by(&format!("{prepare} && exec \"$0\" \"$@\""), args)
    }

    /// A script that calls the program with `args`, as `"$0" "$@"`, in a private copy of the mounts.
    pub(crate) fn command_by(&self, script: &str, args: &[&str]) -> Command {
        let program = self.command(args);
        let mut call = Command::new("unshare");
        call.args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(program.get_program())
            .args(program.get_args());
        call
    }

    /// The limit of a container's processes, as its figures have it.
    pub(crate) fn pids_limit(&self, id: &str) -> Option<u64> {
        let stats: Value = serde_json::from_str(&self.ok(&["events", "--stats", id])).unwrap();
        stats["data"]["pids"]["limit"].as_u64()
    }

    /// Makes a bundle that runs a line of shell.
    pub(crate) fn shell(&self, script: &str) -> String {
        self.bundle("bundle", &shell(script))
    }

    /// Starts a container that runs until it is killed.
    pub(crate) fn running(&self, id: &str) {
        self.detached(id, &["sleep", "1000"]);
    }

    /// Starts a container whose streams are nobody's.
    pub(crate) fn detached(&self, id: &str, command: &[&str]) {
        let mut args = vec!["run", "--detach", "--name", id, "--"];
        args.extend(command);
        self.quietly(&args);
    }

    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }
}

/// A process that runs a line of shell.
pub(crate) fn shell(script: &str) -> Value {
    serde_json::json!({
        "args": ["/bin/sh", "-c", script],
        "cwd": "/",
        "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
    })
}

impl Drop for Rig {
    fn drop(&mut self) {
        let list = self
            .command(&["list", "--quiet"])
            .output()
            .map(|output| output.stdout);
        for id in String::from_utf8_lossy(&list.unwrap_or_default()).lines() {
            let _ = self.command(&["delete", "--force", id]).status();
        }
        // With all that is mounted below it. Of a base on a disk a directory in it is the mount.
        for name in ["base/live", "base"] {
            let _ = nix::mount::umount2(&self.path(name), nix::mount::MntFlags::MNT_DETACH);
        }
        if std::thread::panicking() {
            return;
        }
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let below = self.path("").display().to_string();
        let mounts: Vec<_> = table.lines().filter(|line| line.contains(&below)).collect();
        assert!(mounts.is_empty(), "left mounted: {mounts:?}");
        if self.root().exists() {
            let left: Vec<_> = fs::read_dir(self.root())
                .unwrap()
                .map(Result::unwrap)
                // A database stays, as the root itself does.
                .filter(|entry| !is_database(&entry.file_name().to_string_lossy()))
                .collect();
            assert!(left.is_empty(), "left behind: {left:?}");
            assert_eq!(self.logs(), [] as [PathBuf; 0], "logs left behind");
        }
    }
}

/// Whether this is the name of a root's database, or of a file beside it.
pub(crate) fn is_database(name: &str) -> bool {
    name.starts_with(".state.db")
}

/// Reads a child's standard output up to and with the first line.
pub(crate) fn first_line(child: &mut Child) -> String {
    let stdout = child.stdout.as_mut().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// What is in the file at `path`, as a pid.
pub(crate) fn pid_in(path: &Path) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(fs::read_to_string(path).unwrap().parse().unwrap())
}

/// This process adopts what its children leave, as engines do.
pub(crate) fn become_subreaper() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
}

/// Kills the monitor of the init process `pid`.
pub(crate) fn kill_monitor(pid: &str) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let monitor = stat.rsplit(')').next().unwrap().split(' ').nth(2).unwrap();
    let monitor = nix::unistd::Pid::from_raw(monitor.parse().unwrap());
    nix::sys::signal::kill(monitor, Signal::SIGKILL).unwrap();
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

/// The code of a program that was not ended by a signal.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().expect("ended by a signal")
}
