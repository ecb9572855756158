//! Tasks of a shim that is driven directly, as containerd would.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::PoisonError,
    time::{Duration, Instant},
};

use containerd_shim_protos::{
    Client,
    api::{
        ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
        DeleteResponse, Empty, KillRequest, PidsRequest, PidsResponse, ShutdownRequest,
        StartRequest, StartResponse, StatsRequest, StatsResponse,
    },
    protobuf::{Message, MessageField, well_known_types::any::Any},
    ttrpc::{self, Request},
};
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
        wait::waitpid,
    },
    unistd::{Pid, mkfifo},
};
use reaper_tests::{procfs::Process, runtime::LIMIT};
use serde_json::json;

use crate::rig::{Rig, Shim};

/// A container with its task, from before its start until its deletion.
pub(crate) struct Task<'a> {
    rig: &'a Rig,
    id: String,
    server: Server,
    client: Client,
    /// Its process.
    pub(crate) pid: u32,
    // What nobody here reads, but the shim needs a reader of: its log, an error output.
    _unread: Vec<File>,
}

impl<'a> Task<'a> {
    /// Starts a shim, or finds that of the pod, and has it create the task. The pod's own task,
    /// its sandbox, is the one whose id is the pod's.
    pub(crate) fn create(
        rig: &'a Rig,
        shim: Shim,
        pod: &str,
        id: &str,
        args: &[&str],
        stdout: Option<&Path>,
    ) -> Self {
        let kind = if id == pod { "sandbox" } else { "container" };
        let annotations = json!({
            "io.kubernetes.cri.container-type": kind,
            "io.kubernetes.cri.sandbox-id": pod,
        });
        let bundle = rig.bundles.make(shim.contains(), id, args, &annotations);
        let mut unread = vec![make_fifo(&bundle.join("log"))];
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(stdout) = stdout {
            // runc's shim wants both or none.
            let stderr = bundle.join("stderr");
            unread.push(make_fifo(&stderr));
            out = stdout.display().to_string();
            err = stderr.display().to_string();
        }
        let server = start_shim(rig, shim, id, &bundle);
        let client = client(rig, &server.address);
        let mut task = Self {
            rig,
            id: id.to_owned(),
            server,
            client,
            pid: 0,
            _unread: unread,
        };
        let response: CreateTaskResponse = task.call(
            "Create",
            &CreateTaskRequest {
                id: id.to_owned(),
                bundle: bundle.display().to_string(),
                stdout: out,
                stderr: err,
                options: options(rig, shim),
                ..Default::default()
            },
        );
        task.pid = response.pid;
        task
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn start(&self) {
        let id = self.id.clone();
        let _: StartResponse = self.call(
            "Start",
            &StartRequest {
                id,
                ..Default::default()
            },
        );
    }

    /// Kills the process, not by way of the shim, and says when.
    pub(crate) fn kill(&self) -> Instant {
        let now = Instant::now();
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL).expect("kill the workload");
        now
    }

    pub(crate) fn delete(self) {
        let id = self.id.clone();
        let _: DeleteResponse = self.call(
            "Delete",
            &DeleteRequest {
                id,
                ..Default::default()
            },
        );
    }

    /// Runs the task from its start to its deletion.
    pub(crate) fn kill_and_delete(self) {
        self.kill();
        self.rig.events.exit_of(&self.id);
        self.delete();
    }

    /// The shim's process.
    pub(crate) fn shim(&self) -> Process {
        let id = self.id.clone();
        let response: ConnectResponse = self.call(
            "Connect",
            &ConnectRequest {
                id,
                ..Default::default()
            },
        );
        Process::find(response.shim_pid).expect("the shim is running")
    }

    /// How many processes the container has.
    pub(crate) fn processes(&self) -> usize {
        let id = self.id.clone();
        let response: PidsResponse = self.call(
            "Pids",
            &PidsRequest {
                id,
                ..Default::default()
            },
        );
        response.processes.len()
    }

    /// Asks for the container's figures, and returns how long that took.
    pub(crate) fn stats(&self) -> Duration {
        let id = self.id.clone();
        let request = StatsRequest {
            id,
            ..Default::default()
        };
        let begin = Instant::now();
        let response: StatsResponse = self.call("Stats", &request);
        let time = begin.elapsed();
        assert!(response.stats.is_some(), "figures in the answer");
        time
    }

    fn call<T: Message, U: Message>(&self, method: &str, request: &T) -> U {
        let payload = self.request(method, request);
        let payload = payload.unwrap_or_else(|error| panic!("{method}: {error}"));
        U::parse_from_bytes(&payload).expect("an answer of the right type")
    }

    fn request<T: Message>(&self, method: &str, message: &T) -> ttrpc::Result<Vec<u8>> {
        let request = Request {
            service: self.server.service.to_owned(),
            method: method.to_owned(),
            payload: message
                .write_to_bytes()
                .expect("a message that can be encoded"),
            timeout_nano: i64::try_from(LIMIT.as_nanos()).unwrap_or(i64::MAX),
            ..Default::default()
        };
        self.client
            .request(request)
            .map(|response| response.payload)
    }
}

/// A pod: a sandbox, whose shim its containers share.
pub(crate) struct Pod<'a> {
    rig: &'a Rig,
    shim: Shim,
    sandbox: Task<'a>,
    /// The shim's process.
    pub(crate) process: Process,
}

impl<'a> Pod<'a> {
    /// Starts a pod without containers.
    pub(crate) fn start(rig: &'a Rig, shim: Shim) -> Self {
        let pod = rig.id("pod");
        let sandbox = Task::create(rig, shim, &pod, &pod, &IDLE, None);
        sandbox.start();
        let process = sandbox.shim();
        Self {
            rig,
            shim,
            sandbox,
            process,
        }
    }

    /// Creates a task in it.
    pub(crate) fn task(&self, args: &[&str], stdout: Option<&Path>) -> Task<'a> {
        let id = self.rig.id("task");
        Task::create(self.rig, self.shim, &self.sandbox.id, &id, args, stdout)
    }

    /// Creates and starts a task that does nothing until it is killed.
    pub(crate) fn idle_task(&self) -> Task<'a> {
        let task = self.task(&IDLE, None);
        task.start();
        task
    }

    /// Ends it, when its containers are deleted, and waits until the shim is gone.
    pub(crate) fn stop(self) {
        let Self {
            rig,
            sandbox,
            process,
            ..
        } = self;
        let id = sandbox.id.clone();
        // A sandbox need not have a process of its own.
        let signal = Signal::SIGKILL as u32;
        let _: Empty = sandbox.call(
            "Kill",
            &KillRequest {
                id: id.clone(),
                signal,
                ..Default::default()
            },
        );
        rig.events.exit_of(&id);
        let _: DeleteResponse = sandbox.call(
            "Delete",
            &DeleteRequest {
                id: id.clone(),
                ..Default::default()
            },
        );
        // The shim may be gone before it has answered.
        let _ = sandbox.request(
            "Shutdown",
            &ShutdownRequest {
                id,
                ..Default::default()
            },
        );
        let mut clients = rig.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.remove(&sandbox.server.address);
        // Whoever started it is gone, so it is a child of this program.
        let shim = Pid::from_raw(process.pid.cast_signed());
        waitpid(shim, None).expect("wait for the shim");
    }
}

/// Makes a FIFO and opens it in a way that never blocks, neither here nor whoever writes to it.
pub(crate) fn make_fifo(path: &Path) -> File {
    mkfifo(path, Mode::S_IRWXU).expect("make a FIFO");
    File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("open a FIFO")
}

/// A workload that does nothing.
pub(crate) const IDLE: [&str; 3] = [crate::bundle::BUSYBOX, "sleep", "1000000"];

/// Where a shim answers, and to what.
struct Server {
    address: String,
    service: &'static str,
}

fn start_shim(rig: &Rig, shim: Shim, id: &str, bundle: &Path) -> Server {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Not by current_dir, with which a static program forks. That takes the longer, the more
    // shims this one is connected to.
    let output = Command::new("/usr/bin/env")
        .arg("-C")
        .arg(bundle)
        .arg(shim.program())
        .args(["-namespace", rig.namespace(), "-address"])
        .arg(rig.dir().join("containerd.sock"))
        .args(["-publish-binary", "/bin/false", "-id", id, "start"])
        .env_clear()
        .env("PATH", path)
        .env("NAMESPACE", rig.namespace())
        .env("TTRPC_ADDRESS", rig.events.path())
        .env("GRPC_ADDRESS", rig.dir().join("containerd.sock"))
        .env("GOMAXPROCS", "2")
        .env("REAPER_RUNTIME_ROOT", rig.dir().join("reaper"))
        .env("REAPER_OVERLAY_ENABLED", "false")
        .stdin(Stdio::null())
        .output()
        .expect("run the shim's start");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} start: {text} {error}",
        shim.name()
    );
    if !text.starts_with('{') {
        return Server {
            address: text,
            service: "containerd.task.v2.Task",
        };
    }
    let reply: serde_json::Value = serde_json::from_str(&text).expect("a reply in JSON");
    let service = if reply["version"].as_u64() >= Some(3) {
        "containerd.task.v3.Task"
    } else {
        "containerd.task.v2.Task"
    };
    Server {
        address: reply["address"].as_str().expect("an address").to_owned(),
        service,
    }
}

/// A client, one for each shim.
fn client(rig: &Rig, address: &str) -> Client {
    let mut clients = rig.clients.lock().unwrap_or_else(PoisonError::into_inner);
    let connect = || Client::connect(address).expect("connect to the shim");
    clients
        .entry(address.to_owned())
        .or_insert_with(connect)
        .clone()
}

/// runc's shim keeps its state where it is told by an option.
fn options(rig: &Rig, shim: Shim) -> MessageField<Any> {
    /// `root` of `containerd.runc.v1.Options`: field 7, a string.
    const ROOT: u8 = 7 << 3 | 2;
    if shim == Shim::Reaper {
        return MessageField::none();
    }
    let root: PathBuf = rig.dir().join("runc");
    let root = root.display().to_string();
    let mut value = vec![ROOT, u8::try_from(root.len()).expect("a short path")];
    value.extend_from_slice(root.as_bytes());
    MessageField::some(Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value,
        ..Default::default()
    })
}
