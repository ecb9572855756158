//! Containers of many kinds, as the kubelet asks for them.

use std::fs;

use reaper_tests::{
    Node,
    cri::{
        container,
        messages::{
            Capability, ContainerConfig, Device, Int64Value, KeyValue, LinuxContainerResources,
            LinuxContainerSecurityContext, Mount, MountPropagation, PodSandboxConfig,
        },
    },
};

/// A pod with what Kubernetes writes on every pod.
pub(crate) fn pod(node: &Node) -> PodSandboxConfig {
    let mut pod = node.pod_config("kinds");
    for (key, value) in [
        ("io.kubernetes.pod.name", "kinds"),
        ("io.kubernetes.pod.namespace", "default"),
    ] {
        pod.labels.insert(key.to_owned(), value.to_owned());
    }
    pod.annotations
        .insert("reaper.runtime/overlay-scope".to_owned(), "pod".to_owned());
    // Or it can have no privileged container.
    let linux = pod.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().privileged = true;
    pod
}

/// Containers, each with the name of its kind.
pub(crate) fn containers(node: &Node) -> Vec<(&'static str, ContainerConfig)> {
    let plain = |kind: &str| container(kind, &["/bin/sleep", "1000"]);
    vec![
        ("plain", plain("plain")),
        ("volumes", volumes(node, plain("volumes"))),
        ("user", user(plain("user"))),
        ("privileged", privileged(plain("privileged"))),
        ("limits", limits(plain("limits"))),
        ("terminal", terminal(plain("terminal"))),
    ]
}

fn volumes(node: &Node, mut container: ContainerConfig) -> ContainerConfig {
    let mount = |from: &str, to: &str| {
        let from = node.work().join(from);
        fs::create_dir_all(&from).expect("make a volume");
        Mount {
            host_path: from.display().to_string(),
            container_path: to.to_owned(),
            ..Mount::default()
        }
    };
    let secret = "/var/run/secrets/kubernetes.io/serviceaccount";
    container.mounts = vec![
        Mount {
            readonly: true,
            ..mount("token", secret)
        },
        mount("empty", "/cache"),
        Mount {
            propagation: MountPropagation::PropagationHostToContainer.into(),
            ..mount("slave", "/slave")
        },
        Mount {
            selinux_relabel: true,
            readonly: true,
            ..mount("config", "/etc/app")
        },
        mount("termination-log", "/dev/termination-log"),
    ];
    container
}

fn security(container: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    let linux = container.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default()
}

fn user(mut container: ContainerConfig) -> ContainerConfig {
    let security = security(&mut container);
    security.run_as_user = Some(Int64Value { value: 33 });
    security.run_as_group = Some(Int64Value { value: 34 });
    security.supplemental_groups = vec![4, 24];
    security.no_new_privs = true;
    security.readonly_rootfs = true;
    security.capabilities = Some(Capability {
        add_capabilities: vec!["NET_ADMIN".to_owned()],
        drop_capabilities: vec!["ALL".to_owned()],
        ..Capability::default()
    });
    container.working_dir = "/tmp".to_owned();
    container
}

fn privileged(mut container: ContainerConfig) -> ContainerConfig {
    security(&mut container).privileged = true;
    container.devices.push(Device {
        host_path: "/dev/null".to_owned(),
        container_path: "/dev/nothing".to_owned(),
        permissions: "rwm".to_owned(),
    });
    container
}

fn limits(mut container: ContainerConfig) -> ContainerConfig {
    container.linux.get_or_insert_default().resources = Some(LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        oom_score_adj: 985,
        ..LinuxContainerResources::default()
    });
    container
}

fn terminal(mut container: ContainerConfig) -> ContainerConfig {
    container.tty = true;
    container.stdin = true;
    container.stdin_once = true;
    container.envs = vec![KeyValue {
        key: "QUOTED".to_owned(),
        value: "a \"b\"\n\\ ä €".to_owned(),
    }];
    container
        .annotations
        .insert("example.com/odd \"key\"".to_owned(), "<&>".to_owned());
    container
}
