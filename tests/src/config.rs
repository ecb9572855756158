//! containerd's configuration files.

use std::{fs, path::Path, process::Command};

use crate::{ctr::Output, image::PAUSE, options::Options, suite::reaper_program};

/// The runtime handlers of every node.
const HANDLERS: [(&str, &str); 2] = [
    ("reaper-v2", "io.containerd.reaper.v2"),
    ("runc", "io.containerd.runc.v2"),
];

/// The handlers that `reaper-runtime node install` makes, which are also the names of their runtime classes.
pub const INSTALLED: [&str; 2] = ["reaper-v2", "reaper-v2-pod"];

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
    text += &format!(
        "[{runtime_table}.containerd]\ndefault_runtime_name = \"{}\"\n",
        options.default_handler.unwrap_or("runc")
    );
    let made = HANDLERS
        .iter()
        .filter(|(handler, _)| !options.installed || !INSTALLED.contains(handler));
    for (handler, runtime) in made {
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

/// A configuration with the handlers that `reaper-runtime node install` adds to it. What they name is below `dir`.
pub(crate) fn install(dir: &Path, text: &str) -> String {
    let root = dir.join("installed");
    let file = root.join("etc/containerd/config.toml");
    fs::create_dir_all(root.join("etc/containerd")).expect("make a folder");
    fs::create_dir_all(root.join("usr/local/bin")).expect("make a folder");
    fs::write(&file, text).expect("write a configuration");
    Output::of(
        Command::new(reaper_program("reaper-runtime"))
            .args(["node", "install", "--sysroot"])
            .arg(&root),
    )
    .assert_success();
    let options = "/etc/reaper/reaper-v2-pod.toml";
    let own = dir.join("reaper-v2-pod.toml");
    fs::copy(root.join(&options[1..]), &own).expect("the options of the second handler");
    let text = fs::read_to_string(file).expect("read the configuration");
    fs::remove_dir_all(root).expect("remove the folder");
    text.replace(options, &own.display().to_string())
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
