//! From a manifest's pods to the CRI's, as a kubelet makes them.
//!
//! What is not known here is refused rather than left out: a test of half a manifest would say nothing of it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use k8s_cri::v1::{
    Capability, ContainerConfig, Device, Int64Value, KeyValue, LinuxContainerResources,
    LinuxContainerSecurityContext, Mount, NamespaceMode, NamespaceOption,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PodSecurityContext, PodSpec, PodTemplateSpec, SecurityContext, Volume,
};
use serde_json::Value;

use crate::{
    Node,
    cri::{Plugins, Pod, container_from},
    image::BUSYBOX,
};

/// What a kubelet has masked and made read-only in a container that is not privileged.
const MASKED: [&str; 6] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a test has in the place of a cluster's and a node's own.
#[derive(Debug)]
pub struct Place<'a> {
    /// The node that pods run on.
    pub node: &'a Node,
    /// The folder below which the node's paths of hostPath volumes are.
    pub host: PathBuf,
    /// Variables of all containers, before their own.
    pub env: Vec<(String, String)>,
    /// How pods of a network of their own are connected.
    pub plugins: Option<Plugins>,
    /// All objects of the manifest, with the volumes' ConfigMaps.
    pub objects: &'a [Value],
}

/// A pod whose init containers have ended well, and whose containers were started.
#[derive(Debug)]
pub struct Started {
    /// The pod.
    pub pod: Pod,
    /// The ids of its containers, by name.
    pub containers: BTreeMap<String, String>,
}

impl Place<'_> {
    /// Runs a template's pod by a handler. Panics where it has what is not known here, or does not start.
    pub fn run(&self, handler: &str, name: &str, template: &PodTemplateSpec) -> Started {
        let mut spec = template.spec.clone().expect("a pod's spec");
        leave_to_cluster(&mut spec);
        let is_on_host = spec.host_network.take().unwrap_or_default();
        let mut config = match self.plugins {
            _ if is_on_host => self.node.pod_config(name),
            Some(plugins) => self.node.pod_config_behind(name, plugins),
            None => self.node.pod_config_of_own_network(name),
        };
        let metadata = template.metadata.clone().unwrap_or_default();
        config.annotations = metadata
            .annotations
            .unwrap_or_default()
            .into_iter()
            .collect();
        if let (Some(own), Some(namespace)) = (&mut config.metadata, metadata.namespace) {
            own.namespace = namespace;
        }
        let namespaces = NamespaceOption {
            network: mode(is_on_host),
            pid: mode(spec.host_pid.take().unwrap_or_default()),
            ipc: mode(spec.host_ipc.take().unwrap_or_default()),
            ..NamespaceOption::default()
        };
        let context = spec.security_context.take().unwrap_or_default();
        let volumes: BTreeMap<String, PathBuf> = spec
            .volumes
            .take()
            .into_iter()
            .flatten()
            .map(|volume| (volume.name.clone(), self.volume(name, volume)))
            .collect();
        let convert = |list: Vec<Container>| -> Vec<ContainerConfig> {
            let convert = |it| self.container(it, &volumes, &context, &namespaces);
            list.into_iter().map(convert).collect()
        };
        let init = convert(spec.init_containers.take().unwrap_or_default());
        let containers = convert(std::mem::take(&mut spec.containers));
        assert_eq!(spec, PodSpec::default(), "{name}: not known here");

        let linux = config.linux.as_mut().expect("a pod of Linux");
        let sandbox = linux.security_context.as_mut().expect("a security context");
        sandbox.privileged = init.iter().chain(&containers).any(is_privileged);
        sandbox.namespace_options = Some(namespaces);
        let pod = self.node.run_pod_by(handler, config);
        let pod = pod.unwrap_or_else(|status| panic!("run pod {name}: {status}"));
        for container in &init {
            let id = pod.start(container);
            let code = self.node.cri().exited(&id).exit_code;
            assert_eq!(code, 0, "{name}: {:?}", pod.log(name_of(container)));
        }
        let start = |it: &ContainerConfig| (name_of(it).to_owned(), pod.start(it));
        let containers = containers.iter().map(start).collect();
        Started { pod, containers }
    }

    /// The folder or file that a volume is mounted from.
    fn volume(&self, pod: &str, mut volume: Volume) -> PathBuf {
        let own = self
            .node
            .work()
            .join("volumes")
            .join(pod)
            .join(&volume.name);
        let path = if let Some(host) = volume.host_path.take() {
            let path = self.host.join(host.path.trim_start_matches('/'));
            if host.type_.as_deref() == Some("DirectoryOrCreate") {
                fs::create_dir_all(&path).expect("make a host's folder");
            }
            assert!(path.exists(), "the test has no {}", host.path);
            path
        } else if volume.empty_dir.take().is_some() {
            fs::create_dir_all(&own).expect("make an emptyDir");
            own
        } else if let Some(source) = volume.config_map.take() {
            fs::create_dir_all(&own).expect("make a ConfigMap's folder");
            for (key, text) in self.config_map(&source.name) {
                fs::write(own.join(key), text).expect("write a ConfigMap's file");
            }
            own
        } else {
            own
        };
        let rest = Volume {
            name: volume.name.clone(),
            ..Volume::default()
        };
        assert_eq!(volume, rest, "{pod}: not known here");
        path
    }

    fn config_map(&self, name: &str) -> BTreeMap<String, String> {
        let is_it = |it: &&Value| it["kind"] == "ConfigMap" && it["metadata"]["name"] == name;
        let object = self.objects.iter().find(is_it);
        let object = object.unwrap_or_else(|| panic!("no ConfigMap {name}"));
        let map: ConfigMap = serde_json::from_value(object.clone()).expect("a ConfigMap");
        map.data.unwrap_or_default()
    }

    fn container(
        &self,
        mut from: Container,
        volumes: &BTreeMap<String, PathBuf>,
        pod: &PodSecurityContext,
        namespaces: &NamespaceOption,
    ) -> ContainerConfig {
        let name = std::mem::take(&mut from.name);
        let mut config = container_from(BUSYBOX, &name, &[]);
        config.command = from.command.take().unwrap_or_default();
        config.args = from.args.take().unwrap_or_default();
        config.working_dir = from.working_dir.take().unwrap_or_default();
        config.tty = from.tty.take().unwrap_or_default();
        config.stdin = from.stdin.take().unwrap_or_default();
        let variables = from.env.take().into_iter().flatten().map(|variable| {
            let value = variable
                .value
                .unwrap_or_else(|| panic!("{name}: {}", variable.name));
            (variable.name, value)
        });
        let variables = self.env.iter().cloned().chain(variables);
        config.envs = variables
            .map(|(key, value)| KeyValue { key, value })
            .collect();
        for mount in from.volume_mounts.take().into_iter().flatten() {
            let volume = volumes.get(&mount.name);
            let mut source = volume
                .unwrap_or_else(|| panic!("no volume {}", mount.name))
                .clone();
            if let Some(below) = &mount.sub_path {
                source.push(below);
            }
            config.mounts.push(Mount {
                container_path: mount.mount_path,
                host_path: source.display().to_string(),
                readonly: mount.read_only.unwrap_or_default(),
                ..Mount::default()
            });
        }
        let context = from.security_context.take().unwrap_or_default();
        let linux = config.linux.as_mut().expect("a container of Linux");
        linux.security_context = Some(security(&name, context, pod, namespaces));
        let resources = from.resources.take().unwrap_or_default();
        let mut limits = LinuxContainerResources::default();
        for (resource, quantity) in resources.limits.unwrap_or_default() {
            match resource.as_str() {
                "memory" => limits.memory_limit_in_bytes = mebibytes(&quantity.0),
                // What a device plugin answers for a device of its resource.
                other if other.contains('/') => config.devices.push(Device {
                    host_path: "/dev/fuse".to_owned(),
                    container_path: "/dev/fuse".to_owned(),
                    permissions: "rw".to_owned(),
                }),
                other => panic!("{name}: a limit of {other}"),
            }
        }
        linux.resources = Some(limits);
        // They are asked by the tests, as a kubelet does, or are for the cluster.
        for _probe in [&mut from.liveness_probe, &mut from.readiness_probe] {
            _probe.take();
        }
        from.image.take();
        from.ports.take();
        assert_eq!(from, Container::default(), "{name}: not known here");
        config
    }
}

/// Where a pod goes, what else there is of it, and when it is begun again: nothing that a node's runtime sees.
fn leave_to_cluster(spec: &mut PodSpec) {
    spec.affinity.take();
    spec.automount_service_account_token.take();
    spec.node_name.take();
    spec.node_selector.take();
    spec.priority_class_name.take();
    spec.restart_policy.take();
    spec.runtime_class_name.take();
    spec.service_account_name.take();
    spec.termination_grace_period_seconds.take();
    spec.tolerations.take();
    spec.topology_spread_constraints.take();
}

fn security(
    name: &str,
    mut own: SecurityContext,
    pod: &PodSecurityContext,
    namespaces: &NamespaceOption,
) -> LinuxContainerSecurityContext {
    let is_privileged = own.privileged.take().unwrap_or_default();
    let int = |value: Option<i64>| value.map(|value| Int64Value { value });
    let list = |paths: &[&str]| match is_privileged {
        true => Vec::new(),
        false => paths.iter().map(|&path| path.to_owned()).collect(),
    };
    let capabilities = own.capabilities.take().map(|it| Capability {
        add_capabilities: it.add.unwrap_or_default(),
        drop_capabilities: it.drop.unwrap_or_default(),
        ..Capability::default()
    });
    let context = LinuxContainerSecurityContext {
        privileged: is_privileged,
        namespace_options: Some(namespaces.clone()),
        run_as_user: int(own.run_as_user.take().or(pod.run_as_user)),
        run_as_group: int(own.run_as_group.take().or(pod.run_as_group)),
        supplemental_groups: pod.supplemental_groups.clone().unwrap_or_default(),
        readonly_rootfs: own.read_only_root_filesystem.take().unwrap_or_default(),
        no_new_privs: own.allow_privilege_escalation.take() == Some(false),
        masked_paths: list(&MASKED),
        readonly_paths: list(&READ_ONLY),
        capabilities,
        ..LinuxContainerSecurityContext::default()
    };
    let known = PodSecurityContext {
        run_as_user: pod.run_as_user,
        run_as_group: pod.run_as_group,
        supplemental_groups: pod.supplemental_groups.clone(),
        ..PodSecurityContext::default()
    };
    assert_eq!(*pod, known, "{name}: not known here");
    assert_eq!(own, SecurityContext::default(), "{name}: not known here");
    context
}

fn mode(is_of_node: bool) -> i32 {
    match is_of_node {
        true => NamespaceMode::Node.into(),
        false => NamespaceMode::Pod.into(),
    }
}

fn mebibytes(quantity: &str) -> i64 {
    let number = quantity
        .strip_suffix("Mi")
        .and_then(|text| text.parse::<i64>().ok());
    number.unwrap_or_else(|| panic!("{quantity} is not in Mi")) << 20
}

fn name_of(container: &ContainerConfig) -> &str {
    container
        .metadata
        .as_ref()
        .map_or("", |metadata| metadata.name.as_str())
}

fn is_privileged(container: &ContainerConfig) -> bool {
    let context = container
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    context.is_some_and(|context| context.privileged)
}
