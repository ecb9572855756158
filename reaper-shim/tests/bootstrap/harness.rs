//! A node of a test's own, and the shim's program on it.

use std::{
    fs::{self, File},
    io::{BufReader, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use containerd_shim_protos::{
    api::*,
    shim_async::TaskClient,
    ttrpc::{self, asynchronous::Client, context},
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use reaper_exec::procfs;
use tempfile::TempDir;

pub(crate) const SECRET: &str = "CONTAINERD_SECRET";

/// A state root, bundles, and no containerd.
pub(crate) struct Node {
    dir: TempDir,
    root: PathBuf,
    env: Vec<(&'static str, String)>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with_root("root")
    }

    pub(crate) fn with_root(root: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(root);
        Self {
            dir,
            root,
            env: Vec::new(),
        }
    }

    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A bundle of a container in the pod `pod`, whose sandbox has the pod's id.
    pub(crate) fn bundle(&self, id: &str, pod: &str) -> PathBuf {
        let bundle = self.dir.path().join("bundles").join(id);
        fs::create_dir_all(&bundle).unwrap();
        let kind = if id == pod { "sandbox" } else { "container" };
        let config = format!(
            r#"{{"process":{{"args":["/pause"],"cwd":"/"}},"annotations":{{
                "io.kubernetes.cri.container-type":"{kind}",
                "io.kubernetes.cri.sandbox-id":"{pod}"}}}}"#
        );
        fs::write(bundle.join("config.json"), config).unwrap();
        bundle
    }

    /// The log of a shim that is started for this container, as containerd reads it. It is kept
    /// open for writing too, so that it has no end.
    pub(crate) fn log(&self, id: &str) -> BufReader<File> {
        let path = self.bundle(id, id).join("log");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let log = File::options().read(true).write(true).open(path);
        BufReader::new(log.unwrap())
    }

    pub(crate) fn command(&self, id: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_containerd-shim-reaper-v2"));
        command
            .args(["-namespace", "test", "-id", id])
            .args([
                "-address",
                self.dir.path().join("containerd.sock").to_str().unwrap(),
            ])
            .args(["-publish-binary", "/bin/false"])
            .args(args)
            .env("REAPER_RUNTIME_ROOT", &self.root)
            .env("REAPER_OVERLAY_ENABLED", "false")
            .env("TTRPC_ADDRESS", self.dir.path().join("events"))
            .env(SECRET, "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path().join("bundles").join(id))
            .stdin(Stdio::null());
        command
    }

    /// The action `start`, and its standard output.
    pub(crate) fn start(&self, id: &str) -> String {
        let output = self.command(id, &["start"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn start_with_input(&self, id: &str, input: &[u8]) -> Output {
        let mut child = self
            .command(id, &["start"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// A shim with a sandbox of this id that runs.
    pub(crate) async fn pod(&self, id: &str) -> Shim {
        let bundle = self.bundle(id, id);
        let shim = Shim::connect(&self.start(id)).await;
        shim.create(id, &bundle).await.unwrap();
        shim
    }

    /// The pids of the daemons of this node.
    pub(crate) fn daemons(&self) -> Vec<u32> {
        let marker = self.dir.path().to_str().unwrap().to_owned();
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
        });
        pids.filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            command.contains(&marker) && command.ends_with("serve\0")
        })
        .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for pid in self.daemons() {
            let _ = kill(pid_of(pid), Signal::SIGKILL);
        }
    }
}

/// A client of a shim.
pub(crate) struct Shim {
    pub(crate) address: String,
    pub(crate) client: Client,
    pub(crate) task: TaskClient,
    pub(crate) pid: u32,
    process: std::os::fd::OwnedFd,
}

impl Shim {
    pub(crate) async fn connect(address: &str) -> Self {
        let client = Client::connect(address).await.unwrap();
        let task = TaskClient::new(client.clone());
        let pid = task
            .connect(context::with_timeout(0), &ConnectRequest::default())
            .await
            .unwrap()
            .shim_pid;
        let process = procfs::open_pidfd(&procfs::identify(pid).unwrap()).unwrap();
        Self {
            address: address.to_owned(),
            client,
            task,
            pid,
            process,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        Path::new(self.address.strip_prefix("unix://").unwrap())
    }

    pub(crate) async fn create(&self, id: &str, bundle: &Path) -> ttrpc::Result<()> {
        let request = CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_str().unwrap().into(),
            ..Default::default()
        };
        self.task.create(context::with_timeout(0), &request).await?;
        let request = StartRequest {
            id: id.into(),
            ..Default::default()
        };
        self.task
            .start(context::with_timeout(0), &request)
            .await
            .map(drop)
    }

    pub(crate) async fn kill(&self, id: &str, signal: u32) {
        let request = KillRequest {
            id: id.into(),
            signal,
            ..Default::default()
        };
        let killed = self.task.kill(context::with_timeout(0), &request).await;
        killed.unwrap();
    }

    /// The code with which it has ended.
    pub(crate) async fn wait(&self, id: &str) -> u32 {
        let request = WaitRequest {
            id: id.into(),
            ..Default::default()
        };
        let ended = self.task.wait(context::with_timeout(0), &request).await;
        ended.unwrap().exit_status
    }

    pub(crate) async fn remove(&self, id: &str) {
        self.kill(id, 9).await;
        self.wait(id).await;
        self.remove_stopped(id).await;
    }

    pub(crate) async fn remove_stopped(&self, id: &str) {
        let request = DeleteRequest {
            id: id.into(),
            ..Default::default()
        };
        let deleted = self.task.delete(context::with_timeout(0), &request).await;
        deleted.unwrap();
    }

    pub(crate) async fn shutdown(&self) {
        let request = ShutdownRequest::default();
        self.task
            .shutdown(context::with_timeout(0), &request)
            .await
            .unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(pid_of(self.pid), signal).unwrap();
    }

    /// Waits until the daemon has ended.
    pub(crate) fn ended(&self) {
        let mut ended = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        assert_eq!(
            poll(&mut ended, PollTimeout::from(20_000u16)),
            Ok(1),
            "the shim goes on"
        );
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap())
}
