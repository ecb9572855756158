//! The CRI, as the kubelet uses it.

mod cni;

use std::{fs, path::PathBuf};

use containerd_client::tonic::{Request, Status, transport::Channel};
use k8s_cri::v1::{
    AttachRequest, ContainerConfig, ContainerMetadata, ContainerStatsRequest, ContainerStatus,
    ContainerStatusRequest, CreateContainerRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse,
    ImageSpec, LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListContainersRequest, ListImagesRequest,
    ListPodSandboxRequest, ListPodSandboxStatsRequest, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PodSandboxStats, PodSandboxStatsRequest,
    PodSandboxStatus, PodSandboxStatusRequest, PortForwardRequest, RemoveContainerRequest,
    RemovePodSandboxRequest, ReopenContainerLogRequest, RunPodSandboxRequest,
    StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
    UpdateContainerResourcesRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};

use crate::{Node, image::BUSYBOX, runtime::within};

pub use self::cni::Plugins;
/// The CRI's messages.
pub use k8s_cri::v1 as messages;

/// The CRI of a node.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
}

/// A pod that runs on the node's network.
#[derive(Debug, Clone)]
pub struct Pod {
    cri: Cri,
    /// The sandbox's id.
    pub id: String,
    /// What it was made from.
    pub config: PodSandboxConfig,
}

impl Node {
    /// The CRI of this node.
    pub fn cri(&self) -> Cri {
        Cri {
            channel: self.channel(),
        }
    }

    /// The configuration of a pod on the node's network, with cgroups of this node.
    pub fn pod_config(&self, name: &str) -> PodSandboxConfig {
        let logs = self.dir().join("pods").join(name);
        fs::create_dir_all(&logs).expect("make a log folder");
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: self.name(name),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: logs.display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.marker()),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(node_namespaces()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        }
    }

    /// The configuration of a pod in a network of its own, in which there is nothing.
    pub fn pod_config_of_own_network(&self, name: &str) -> PodSandboxConfig {
        cni::install(&self.dir().join("cni"));
        self.config_of_own_network(name)
    }

    fn config_of_own_network(&self, name: &str) -> PodSandboxConfig {
        let mut config = self.pod_config(name);
        let linux = config.linux.as_mut().expect("a pod of Linux");
        let context = linux.security_context.as_mut();
        let options = context.and_then(|context| context.namespace_options.as_mut());
        options.expect("namespaces").network = NamespaceMode::Pod.into();
        config
    }

    /// The configuration of a pod in a network of its own, which plugins of Debian's connect to the node's. The node
    /// must have [one of its own](crate::Options::own_network).
    pub fn pod_config_behind(&self, name: &str, plugins: Plugins) -> PodSandboxConfig {
        cni::connect(&self.dir().join("cni"), plugins);
        self.config_of_own_network(name)
    }

    /// Runs a pod on the node's network.
    pub fn run_pod(&self, name: &str) -> Pod {
        self.run_pod_of(self.pod_config(name))
            .unwrap_or_else(|status| panic!("run pod {name}: {status}"))
    }

    /// Runs a pod.
    pub fn run_pod_of(&self, config: PodSandboxConfig) -> Result<Pod, Status> {
        self.run_pod_by(self.handler(), config)
    }

    /// Runs a pod by another handler than the node's.
    pub fn run_pod_by(&self, handler: &str, config: PodSandboxConfig) -> Result<Pod, Status> {
        let cri = self.cri();
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let answer = within("RunPodSandbox", cri.runtime().run_pod_sandbox(request))?;
        Ok(Pod {
            cri,
            id: answer.into_inner().pod_sandbox_id,
            config,
        })
    }
}

/// The namespaces of a pod with `hostNetwork`, `hostPID` and `hostIPC`.
fn node_namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..NamespaceOption::default()
    }
}

/// The limit of a container's memory, in bytes, and no other.
pub fn memory_limit(bytes: i64) -> LinuxContainerResources {
    LinuxContainerResources {
        memory_limit_in_bytes: bytes,
        ..LinuxContainerResources::default()
    }
}

/// A container of a pod that runs a command from the usual image.
pub fn container(name: &str, command: &[&str]) -> ContainerConfig {
    container_from(BUSYBOX, name, command)
}

/// A container of a pod that runs a command.
pub fn container_from(image: &str, name: &str, command: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: name.to_owned(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: image.to_owned(),
            ..ImageSpec::default()
        }),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(node_namespaces()),
                ..LinuxContainerSecurityContext::default()
            }),
            ..LinuxContainerConfig::default()
        }),
        ..ContainerConfig::default()
    }
}

impl Pod {
    /// Makes a container of this pod, and returns its id.
    pub fn create(&self, container: &ContainerConfig) -> Result<String, Status> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(container.clone()),
            sandbox_config: Some(self.config.clone()),
        };
        within(
            "CreateContainer",
            self.cri.runtime().create_container(request),
        )
        .map(|answer| answer.into_inner().container_id)
    }

    /// Makes and starts a container of this pod, and returns its id.
    #[track_caller]
    pub fn start(&self, container: &ContainerConfig) -> String {
        let id = self
            .create(container)
            .unwrap_or_else(|status| panic!("create: {status}"));
        self.cri
            .start(&id)
            .unwrap_or_else(|status| panic!("start {container:?}: {status}"));
        id
    }

    /// Stops all containers of this pod.
    pub fn stop(&self) {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        within(
            "StopPodSandbox",
            self.cri.runtime().stop_pod_sandbox(request),
        )
        .unwrap_or_else(|status| panic!("stop pod: {status}"));
    }

    /// Removes this pod and its containers.
    pub fn remove(&self) {
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        within(
            "RemovePodSandbox",
            self.cri.runtime().remove_pod_sandbox(request),
        )
        .unwrap_or_else(|status| panic!("remove pod: {status}"));
    }

    /// The same pod, asked for by a new connection: for after a restart of containerd.
    #[must_use]
    pub fn on(&self, node: &Node) -> Self {
        Self {
            cri: node.cri(),
            ..self.clone()
        }
    }

    /// What the pod is doing.
    pub fn status(&self) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: false,
        };
        within(
            "PodSandboxStatus",
            self.cri.runtime().pod_sandbox_status(request),
        )
        .expect("ask for a pod's status")
        .into_inner()
        .status
        .expect("a status in the answer")
    }

    /// What the pod uses, of Linux's figures.
    pub fn stats(&self) -> Option<messages::LinuxPodSandboxStats> {
        let request = PodSandboxStatsRequest {
            pod_sandbox_id: self.id.clone(),
        };
        let mut runtime = self.cri.runtime();
        let answer = within("PodSandboxStats", runtime.pod_sandbox_stats(request))
            .unwrap_or_else(|status| panic!("figures of the pod: {status}"));
        answer.into_inner().stats?.linux
    }

    /// The same, from the figures of all pods.
    pub fn listed_stats(&self) -> Option<messages::LinuxPodSandboxStats> {
        let request = ListPodSandboxStatsRequest::default();
        let mut runtime = self.cri.runtime();
        let answer = within(
            "ListPodSandboxStats",
            runtime.list_pod_sandbox_stats(request),
        )
        .unwrap_or_else(|status| panic!("figures of all pods: {status}"));
        let is_own = |stats: &PodSandboxStats| {
            let attributes = stats.attributes.as_ref();
            attributes.is_some_and(|attributes| attributes.id == self.id)
        };
        answer.into_inner().stats.into_iter().find(is_own)?.linux
    }

    /// The log file of a container.
    pub fn log_path(&self, container: &str) -> PathBuf {
        PathBuf::from(&self.config.log_directory).join(format!("{container}.log"))
    }

    /// The lines that a container has logged, without time stamps: `stdout F hello`.
    pub fn log(&self, container: &str) -> Vec<String> {
        let text = fs::read_to_string(self.log_path(container)).unwrap_or_default();
        text.lines()
            .map(|line| {
                line.split_once(' ')
                    .map_or(line, |(_, rest)| rest)
                    .to_owned()
            })
            .collect()
    }
}

impl Cri {
    /// Whether it has been initialized.
    pub fn is_ready(&self) -> bool {
        let request = ListContainersRequest::default();
        within("ListContainers", self.runtime().list_containers(request)).is_ok()
    }

    /// The names of all images.
    pub fn images(&self) -> Vec<String> {
        let mut client = ImageServiceClient::new(self.channel.clone());
        let images = within(
            "ListImages",
            client.list_images(ListImagesRequest::default()),
        );
        images
            .map(|answer| answer.into_inner().images)
            .unwrap_or_default()
            .into_iter()
            .flat_map(|image| image.repo_tags)
            .collect()
    }

    /// Starts a container.
    pub fn start(&self, id: &str) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: id.to_owned(),
        };
        within("StartContainer", self.runtime().start_container(request)).map(drop)
    }

    /// Stops a container: SIGTERM, and SIGKILL after `grace` seconds.
    pub fn stop(&self, id: &str, grace: i64) -> Result<(), Status> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace,
        };
        within("StopContainer", self.runtime().stop_container(request)).map(drop)
    }

    /// Removes a container.
    pub fn remove(&self, id: &str) -> Result<(), Status> {
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        within("RemoveContainer", self.runtime().remove_container(request)).map(drop)
    }

    /// What a container is doing.
    pub fn status(&self, id: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        within("ContainerStatus", self.runtime().container_status(request))
            .map(|answer| answer.into_inner().status.expect("a status in the answer"))
    }

    /// Waits until a container has exited, and returns its status.
    pub fn exited(&self, id: &str) -> ContainerStatus {
        crate::runtime::until(&format!("container {id} exits"), || {
            let status = self.status(id).expect("ask for a container's status");
            (status.state() == messages::ContainerState::ContainerExited).then_some(status)
        })
    }

    /// The ids of all containers with their states.
    pub fn containers(&self) -> Vec<(String, messages::ContainerState)> {
        let request = ListContainersRequest::default();
        within("ListContainers", self.runtime().list_containers(request))
            .expect("list containers")
            .into_inner()
            .containers
            .into_iter()
            .map(|container| (container.id.clone(), container.state()))
            .collect()
    }

    /// The ids of all pods.
    pub fn pods(&self) -> Vec<String> {
        let request = ListPodSandboxRequest::default();
        within("ListPodSandbox", self.runtime().list_pod_sandbox(request))
            .expect("list pods")
            .into_inner()
            .items
            .into_iter()
            .map(|pod| pod.id)
            .collect()
    }

    /// Changes the limits of a running container.
    pub fn update(&self, id: &str, limits: LinuxContainerResources) {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(limits),
            ..UpdateContainerResourcesRequest::default()
        };
        let mut runtime = self.runtime();
        let updating = runtime.update_container_resources(request);
        within("UpdateContainerResources", updating)
            .unwrap_or_else(|status| panic!("update {id}: {status}"));
    }

    /// Runs a command in a container to its end; 0 seconds are no limit.
    pub fn exec_sync(
        &self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|&word| word.to_owned()).collect(),
            timeout,
        };
        within("ExecSync", self.runtime().exec_sync(request)).map(|answer| answer.into_inner())
    }

    /// The address at which a command's streams are served.
    pub fn exec_url(&self, request: ExecRequest) -> Result<String, Status> {
        within("Exec", self.runtime().exec(request)).map(|answer| answer.into_inner().url)
    }

    /// The address at which a container's streams are served.
    pub fn attach_url(&self, request: AttachRequest) -> Result<String, Status> {
        within("Attach", self.runtime().attach(request)).map(|answer| answer.into_inner().url)
    }

    /// The address at which a pod's ports are served.
    pub fn port_forward_url(&self, request: PortForwardRequest) -> Result<String, Status> {
        within("PortForward", self.runtime().port_forward(request))
            .map(|answer| answer.into_inner().url)
    }

    /// Begins a new log file at the same path.
    pub fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let request = ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        within(
            "ReopenContainerLog",
            self.runtime().reopen_container_log(request),
        )
        .map(drop)
    }

    /// What a container uses.
    pub fn stats(&self, id: &str) -> Result<Option<messages::ContainerStats>, Status> {
        let request = ContainerStatsRequest {
            container_id: id.to_owned(),
        };
        within("ContainerStats", self.runtime().container_stats(request))
            .map(|answer| answer.into_inner().stats)
    }

    /// The client itself, for calls that have no short form here.
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    /// Makes a request, so that callers need no crate of their own for it.
    pub fn request<T>(message: T) -> Request<T> {
        Request::new(message)
    }
}
