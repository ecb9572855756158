//! How the programs of a cluster are configured.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use super::{KUBELET, network::NODE};
use crate::ctr::Output;

/// The node's name.
pub(super) const NODE_NAME: &str = "reaper-node";

/// Where `kubectl proxy` passes plain requests on.
pub(super) const PROXY_PORT: u16 = 8001;

/// The address of the service that resolves names, and the domain of all of them.
pub(super) const DNS: &str = "10.96.0.10";
pub(super) const DOMAIN: &str = "cluster.local";

/// What the clients show the API server, which knows them by it.
const TOKEN: &str = "reaper-test";

/// Writes what the programs read into the cluster's folder.
pub(super) fn write_files(dir: &Path, cgroup: &str, containerd: &Path) {
    let write = |name: &str, text: &str| {
        fs::write(dir.join(name), text).unwrap_or_else(|error| panic!("write {name}: {error}"));
    };
    write("tokens", &format!("{TOKEN},admin,admin,system:masters\n"));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "admin" } }],
        "clusters": [{ "name": "test", "cluster": {
            "server": format!("https://{NODE}:6443"),
            "insecure-skip-tls-verify": true,
        } }],
        "users": [{ "name": "admin", "user": { "token": TOKEN } }],
    });
    write("kubeconfig", &config.to_string());
    let containerd = format!("unix://{}", containerd.display());
    write("containerd", &containerd);
    write("kubelet.yaml", &kubelet(dir, cgroup).to_string());
    write("proxy.yaml", &proxy(dir).to_string());
    Output::of(
        Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(dir.join("accounts.key")),
    )
    .assert_success();
}

/// The kubelet's configuration.
fn kubelet(dir: &Path, cgroup: &str) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE,
        "healthzPort": 0,
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        // It needs a right to lower its own that this machine may not give.
        "oomScoreAdj": 0,
        "failSwapOn": false,
        "clusterDNS": [DNS],
        "clusterDomain": DOMAIN,
        "makeIPTablesUtilChains": false,
        "volumePluginDir": dir.join("volume-plugins"),
        // How full this machine's disks are is no part of a test.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "syncFrequency": "10s",
        // Its usual rates let the end of a pod take seconds after that of many.
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        // Its sockets are in a folder of the node that can't be chosen.
        "featureGates": { "DevicePlugins": false },
    })
}

/// The configuration of what makes services.
fn proxy(dir: &Path) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": dir.join("kubeconfig") },
        "hostnameOverride": NODE_NAME,
        "bindAddress": NODE,
        "oomScoreAdj": 0,
        "mode": "iptables",
        "iptables": { "minSyncPeriod": "100ms", "syncPeriod": "10s" },
        // How many connections the kernel knows is not this network's to say.
        "conntrack": {
            "maxPerCore": 0, "min": 0,
            "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
    })
}

/// Writes another policy for processors into the kubelet's configuration.
pub(super) fn set_cpu_policy(dir: &Path, policy: &str) {
    let path = dir.join("kubelet.yaml");
    let text = fs::read_to_string(&path).expect("read the kubelet's configuration");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["cpuManagerPolicy"] = policy.into();
    config["cpuManagerReconcilePeriod"] = "1s".into();
    // The one policy wants some that it never gives away, the other takes none.
    let reserved = if policy == "static" { "0" } else { "" };
    config["reservedSystemCPUs"] = reserved.into();
    fs::write(path, config.to_string()).expect("write the kubelet's configuration");
}

/// The arguments of a program.
pub(super) fn arguments(name: &str, dir: &Path) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let kubeconfig = format!("--kubeconfig={}", file("kubeconfig"));
    match name {
        "etcd" => vec![
            format!("--data-dir={}", file("etcd")),
            "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        ],
        "kube-apiserver" => vec![
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            format!("--advertise-address={NODE}"),
            format!("--cert-dir={}", file("certificates")),
            format!("--token-auth-file={}", file("tokens")),
            "--authorization-mode=AlwaysAllow".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!(
                "--service-account-signing-key-file={}",
                file("accounts.key")
            ),
            format!("--service-account-key-file={}", file("accounts.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
        ],
        "kube-controller-manager" => vec![
            kubeconfig,
            "--kube-api-qps=100".to_owned(),
            "--kube-api-burst=200".to_owned(),
            "--leader-elect=false".to_owned(),
            format!(
                "--service-account-private-key-file={}",
                file("accounts.key")
            ),
            format!("--root-ca-file={}/apiserver.crt", file("certificates")),
            format!("--cert-dir={}", file("certificates-of-controllers")),
        ],
        "kube-scheduler" => vec![
            kubeconfig,
            "--leader-elect=false".to_owned(),
            format!("--cert-dir={}", file("certificates-of-scheduler")),
        ],
        "kubelet" => {
            let containerd: PathBuf = dir.join("containerd");
            let containerd = fs::read_to_string(containerd).expect("read containerd's address");
            vec![
                kubeconfig,
                format!("--config={}", file("kubelet.yaml")),
                format!("--root-dir={KUBELET}"),
                // Else it is below the place that the first has by default.
                format!("--seccomp-profile-root={KUBELET}/seccomp"),
                format!("--cert-dir={}", file("certificates-of-kubelet")),
                format!("--hostname-override={NODE_NAME}"),
                format!("--node-ip={NODE}"),
                "--container-runtime=remote".to_owned(),
                format!("--container-runtime-endpoint={containerd}"),
                format!("--image-service-endpoint={containerd}"),
                "--v=2".to_owned(),
            ]
        }
        "kube-proxy" => vec![format!("--config={}", file("proxy.yaml"))],
        "kubectl" => vec![
            kubeconfig,
            "proxy".to_owned(),
            format!("--port={PROXY_PORT}"),
        ],
        _ => panic!("no program {name}"),
    }
}
