//! containerd's own API, in the hands of a client that decides about every stream and moment.

mod lives;

use std::{fs, path::Path, time::SystemTime};

use containerd_client::{
    services::v1::{
        CloseIoRequest, Container, CreateContainerRequest, CreateTaskRequest,
        DeleteContainerRequest, DeleteProcessRequest, DeleteResponse, DeleteTaskRequest,
        ExecProcessRequest, GetRequest, KillRequest, ListPidsRequest, MetricsRequest,
        PauseTaskRequest, ResizePtyRequest, ResumeTaskRequest, StartRequest, WaitRequest,
        container::Runtime, containers_client::ContainersClient, tasks_client::TasksClient,
    },
    tonic::{Request, Status, transport::Channel},
    types::{Mount, v1::Process},
};
use prost_types::Any;

use crate::{
    Node,
    containerd::makes_containers,
    runtime::{block_on, spawn, within},
    spec::Workload,
};

/// Why a call failed.
pub use containerd_client::tonic::Code;

/// The type that containerd gives to a config.json.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The type that containerd gives to the process of a config.json.
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Where the streams of a process go: paths of FIFOs or URIs, empty for none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Streams {
    /// The input.
    pub stdin: String,
    /// The output.
    pub stdout: String,
    /// The error output.
    pub stderr: String,
}

impl Streams {
    /// With the output to a path or URI.
    #[must_use]
    pub fn stdout(mut self, target: impl AsRef<Path>) -> Self {
        self.stdout = target.as_ref().display().to_string();
        self
    }

    /// With the error output to a path or URI.
    #[must_use]
    pub fn stderr(mut self, target: impl AsRef<Path>) -> Self {
        self.stderr = target.as_ref().display().to_string();
        self
    }

    /// With the input from a path.
    #[must_use]
    pub fn stdin(mut self, target: impl AsRef<Path>) -> Self {
        self.stdin = target.as_ref().display().to_string();
        self
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, or 128 + the signal.
    pub code: u32,
    /// When.
    pub at: Option<SystemTime>,
}

impl From<DeleteResponse> for Exit {
    fn from(response: DeleteResponse) -> Self {
        Self {
            code: response.exit_status,
            at: time(response.exited_at),
        }
    }
}

/// A wait that is under way.
#[derive(Debug)]
pub struct Waiting(tokio::task::JoinHandle<Result<Exit, Status>>);

impl Waiting {
    /// How the process ended, or why that cannot be known.
    pub fn finish(self) -> Result<Exit, Status> {
        within("wait", self.0).expect("a waiter that does not panic")
    }

    /// Whether the answer is there.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// The containers and tasks of one namespace.
#[derive(Debug, Clone)]
pub struct Api {
    channel: Channel,
    namespace: String,
}

impl Node {
    /// containerd's API in this node's own namespace.
    pub fn api(&self) -> Api {
        self.api_in(self.marker())
    }

    /// containerd's API in a namespace.
    pub fn api_in(&self, namespace: &str) -> Api {
        Api {
            channel: self.channel(),
            namespace: namespace.to_owned(),
        }
    }
}

impl Api {
    /// Makes a container for [`create_task`](Self::create_task).
    pub fn create_container(
        &self,
        node: &Node,
        id: &str,
        workload: &Workload,
    ) -> Result<(), Status> {
        let container = Container {
            id: id.to_owned(),
            runtime: Some(Runtime {
                name: node.runtime().to_owned(),
                options: None,
            }),
            spec: Some(Any {
                type_url: SPEC_TYPE.to_owned(),
                value: workload.config(node, id).to_string().into_bytes(),
            }),
            ..Container::default()
        };
        let request = self.request(CreateContainerRequest {
            container: Some(container),
        });
        let mut containers = ContainersClient::new(self.channel.clone());
        within("create a container", containers.create(request)).map(drop)
    }

    /// Removes a container that has no task.
    pub fn delete_container(&self, id: &str) -> Result<(), Status> {
        let request = self.request(DeleteContainerRequest { id: id.to_owned() });
        let mut containers = ContainersClient::new(self.channel.clone());
        within("delete a container", containers.delete(request)).map(drop)
    }

    /// Makes a container's task; returns its pid.
    pub fn create_task(
        &self,
        node: &Node,
        id: &str,
        workload: &Workload,
        streams: &Streams,
    ) -> Result<u32, Status> {
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs: yardstick_rootfs(node),
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: workload.has_terminal(),
            ..CreateTaskRequest::default()
        };
        let request = self.request(request);
        within("create a task", self.tasks().create(request)).map(|answer| answer.into_inner().pid)
    }

    /// Starts a task, or an exec of it; returns its pid.
    pub fn start(&self, id: &str, exec: &str) -> Result<u32, Status> {
        let request = self.request(StartRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        });
        within("start", self.tasks().start(request)).map(|answer| answer.into_inner().pid)
    }

    /// Adds an exec to a task.
    pub fn exec(
        &self,
        id: &str,
        exec: &str,
        workload: &Workload,
        streams: &Streams,
    ) -> Result<(), Status> {
        let request = self.request(ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: workload.has_terminal(),
            spec: Some(Any {
                type_url: PROCESS_TYPE.to_owned(),
                value: workload.process().to_string().into_bytes(),
            }),
        });
        within("exec", self.tasks().exec(request)).map(drop)
    }

    /// Begins to wait for the end of a task, or of an exec of it.
    pub fn wait(&self, id: &str, exec: &str) -> Waiting {
        let request = self.request(WaitRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        });
        let mut tasks = self.tasks();
        Waiting(spawn(async move {
            let answer = tasks.wait(request).await?.into_inner();
            Ok(Exit {
                code: answer.exit_status,
                at: time(answer.exited_at),
            })
        }))
    }

    /// Sends a signal to a task, or to an exec of it.
    pub fn kill(&self, id: &str, exec: &str, signal: u32) -> Result<(), Status> {
        let request = self.request(KillRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            signal,
            all: false,
        });
        within("kill", self.tasks().kill(request)).map(drop)
    }

    /// Deletes a task that has ended.
    pub fn delete_task(&self, id: &str) -> Result<Exit, Status> {
        let request = self.request(DeleteTaskRequest {
            container_id: id.to_owned(),
        });
        within("delete a task", self.tasks().delete(request))
            .map(|answer| answer.into_inner().into())
    }

    /// Deletes an exec that has ended.
    pub fn delete_exec(&self, id: &str, exec: &str) -> Result<Exit, Status> {
        let request = self.request(DeleteProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        });
        within("delete an exec", self.tasks().delete_process(request))
            .map(|answer| answer.into_inner().into())
    }

    /// What a task, or an exec of it, is doing.
    pub fn state(&self, id: &str, exec: &str) -> Result<Process, Status> {
        let request = self.request(GetRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        });
        within("state", self.tasks().get(request)).map(|answer| {
            answer
                .into_inner()
                .process
                .expect("a process in the answer")
        })
    }

    /// The pids of a task.
    pub fn pids(&self, id: &str) -> Result<Vec<u32>, Status> {
        let request = self.request(ListPidsRequest {
            container_id: id.to_owned(),
        });
        within("pids", self.tasks().list_pids(request)).map(|answer| {
            answer
                .into_inner()
                .processes
                .into_iter()
                .map(|process| process.pid)
                .collect()
        })
    }

    /// Ends the input of a task, or of an exec of it.
    pub fn close_stdin(&self, id: &str, exec: &str) -> Result<(), Status> {
        let request = self.request(CloseIoRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            stdin: true,
        });
        within("close the input", self.tasks().close_io(request)).map(drop)
    }

    /// Changes the size of a terminal.
    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Result<(), Status> {
        let request = self.request(ResizePtyRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            width,
            height,
        });
        within("resize", self.tasks().resize_pty(request)).map(drop)
    }

    /// Freezes a task.
    pub fn pause(&self, id: &str) -> Result<(), Status> {
        let request = self.request(PauseTaskRequest {
            container_id: id.to_owned(),
        });
        within("pause", self.tasks().pause(request)).map(drop)
    }

    /// Thaws a task.
    pub fn resume(&self, id: &str) -> Result<(), Status> {
        let request = self.request(ResumeTaskRequest {
            container_id: id.to_owned(),
        });
        within("resume", self.tasks().resume(request)).map(drop)
    }

    /// The metrics of a task, undecoded.
    pub fn metrics(&self, id: &str) -> Result<Option<Any>, Status> {
        let request = self.request(MetricsRequest {
            filters: vec![format!("id=={id}")],
        });
        within("metrics", self.tasks().metrics(request)).map(|answer| {
            answer
                .into_inner()
                .metrics
                .into_iter()
                .find_map(|metric| metric.data)
        })
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self
            .namespace
            .parse()
            .expect("a namespace that fits a header");
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace);
        request
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Runs a call that has no bound of its own to its end.
    pub(crate) fn call<F: Future>(call: F) -> F::Output {
        block_on(call)
    }
}

fn time(at: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    at.and_then(|at| SystemTime::try_from(at).ok())
}

/// containerd's own runtime needs a root filesystem; Reaper has the node's.
fn yardstick_rootfs(node: &Node) -> Vec<Mount> {
    if !makes_containers() {
        return Vec::new();
    }
    let rootfs = node.dir().join("yardstick-rootfs");
    for name in ["bin", "lib", "lib64", "proc", "run", "usr"] {
        fs::create_dir_all(rootfs.join(name)).expect("make a root filesystem");
    }
    fs::write(rootfs.join("busybox"), "").expect("make a mount point");
    vec![Mount {
        r#type: "bind".to_owned(),
        source: rootfs.display().to_string(),
        options: vec!["rbind".to_owned()],
        ..Mount::default()
    }]
}
