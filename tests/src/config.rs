//! containerd's configuration files.

use std::path::Path;

use crate::{image::PAUSE, options::Options};

/// The runtime handlers of every node.
const HANDLERS: [(&str, &str); 2] = [
    ("reaper-v2", "io.containerd.reaper.v2"),
    ("runc", "io.containerd.runc.v2"),
];

/// The handler whose options have the shim and its monitors in the pod's cgroup.
pub const IN_POD: &str = "reaper-in-pod";

/// The file that these options name, below the node's folder.
pub(crate) const IN_POD_FILE: &str = "in-pod.toml";

/// Plugins that no test needs and that look for devices or take shared paths.
const UNUSED: [&str; 8] = [
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The configuration of a private containerd below `dir`, in the form that `major` reads. What containerd gives up after
/// five seconds by default, and then takes for a dead shim, takes as long on a busy machine.
pub fn render(dir: &Path, major: u32, options: &Options) -> String {
    let dir = dir.display();
    let disabled = UNUSED.map(|plugin| format!("\"{plugin}\"")).join(", ");
    let mut text = format!(
        r#"version = {version}
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [{disabled}]
[grpc]
address = "{dir}/grpc.sock"
[ttrpc]
address = "{dir}/ttrpc.sock"
[debug]
address = "{dir}/debug.sock"
level = "debug"
[timeouts]
"io.containerd.timeout.shim.cleanup" = "30s"
"io.containerd.timeout.shim.load" = "30s"
[plugins."io.containerd.internal.v1.opt"]
path = "{dir}/opt"
"#,
        version = if major >= 2 { 3 } else { 2 },
    );
    let server = r#"disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
"#;
    let runtime_table = if major >= 2 {
        text += &format!(
            r#"[plugins."io.containerd.grpc.v1.cri"]
{server}[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"
"#
        );
        r#"plugins."io.containerd.cri.v1.runtime""#
    } else {
        r#"plugins."io.containerd.grpc.v1.cri""#
    };
    text += &format!(
        "[{runtime_table}]\nrestrict_oom_score_adj = true\ndisable_apparmor = {}\n\
         netns_mounts_under_state_dir = true\n",
        !options.apparmor
    );
    if major < 2 {
        text += &format!("sandbox_image = \"{PAUSE}\"\n{server}");
    }
    // The old name is a warning of every `ctr` from 2.1 on.
    let plugins = if major >= 2 {
        format!("bin_dirs = [\"{dir}/cni\"]")
    } else {
        format!("bin_dir = \"{dir}/cni\"")
    };
    text += &format!("[{runtime_table}.cni]\n{plugins}\nconf_dir = \"{dir}/cni\"\n");
    text += &format!("[{runtime_table}.containerd]\ndefault_runtime_name = \"runc\"\n");
    for (handler, runtime) in HANDLERS {
        text += &format!(
            r#"[{runtime_table}.containerd.runtimes.{handler}]
runtime_type = "{runtime}"
pod_annotations = ["reaper.runtime/*"]
container_annotations = ["reaper.runtime/*"]
"#
        );
    }
    text += &format!(
        r#"[{runtime_table}.containerd.runtimes.{IN_POD}]
runtime_type = "io.containerd.reaper.v2"
[{runtime_table}.containerd.runtimes.{IN_POD}.options]
TypeUrl = "runtimeoptions.v1.Options"
ConfigPath = "{dir}/{IN_POD_FILE}"
"#
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_matches_containerd_generation() {
        let old = render(Path::new("/run/x"), 1, &Options::default());
        assert!(old.starts_with("version = 2\n"), "{old}");
        assert!(
            old.contains(r#"[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.reaper-v2]"#)
        );
        let new = render(Path::new("/run/x"), 2, &Options::default());
        assert!(new.starts_with("version = 3\n"), "{new}");
        assert!(
            new.contains(
                r#"[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.reaper-v2]"#
            )
        );
    }
}
