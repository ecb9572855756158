//! A runtime's command line.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reaper_spec::ContainerId;
use serde_json::Value;

use crate::{before_exec::reset_signals_before_exec, protocol::RuntimeConfig};

/// The `PATH` of a runtime, its hooks and helpers.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A runtime's program, called for one container.
pub(crate) struct Program {
    runtime_config: RuntimeConfig,
    id: ContainerId,
    /// The runtime's state root. Each container has a separate one, so ids cannot collide.
    root: PathBuf,
    systemd: bool,
}

impl Program {
    pub(crate) fn new(runtime_config: RuntimeConfig, id: &ContainerId, folder: &Path) -> Self {
        Self {
            systemd: wants_systemd(&runtime_config.bundle),
            runtime_config,
            id: id.clone(),
            root: folder.join("root"),
        }
    }

    /// A command that logs to `log`. Its name and arguments are to be added.
    pub(crate) fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.runtime_config.program);
        command
            .env_clear()
            .env("PATH", PATH)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .arg("--root")
            .arg(&self.root)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json"]);
        if self.systemd {
            command.arg("--systemd-cgroup");
        }
        // The container's processes start with what the runtime has.
        reset_signals_before_exec(&mut command);
        command
    }

    pub(crate) fn bundle(&self) -> &Path {
        &self.runtime_config.bundle
    }

    /// `name` with its options and the container's id.
    pub(crate) fn on_container(&self, name: &str, options: &[&str]) -> Vec<OsString> {
        let mut arguments = vec![OsString::from(name)];
        arguments.extend(options.iter().map(OsString::from));
        arguments.push(self.id.as_str().into());
        arguments
    }

    /// The arguments that kill and delete the container. It is not an error if it does not exist.
    pub(crate) fn removal(&self) -> Vec<OsString> {
        self.on_container("delete", &["--force"])
    }

    /// The name of a command in messages, for example `runc create`.
    pub(crate) fn step(&self, name: &str) -> String {
        let program = self.runtime_config.program.file_name().unwrap_or_default();
        format!("{} {name}", program.to_string_lossy())
    }
}

/// Whether the bundle names its cgroup in systemd's form, `SLICE:PREFIX:NAME`, which a runtime
/// understands only with `--systemd-cgroup`. A bundle that cannot be read is reported by the
/// runtime.
fn wants_systemd(bundle: &Path) -> bool {
    let spec = fs::read(bundle.join("config.json")).unwrap_or_default();
    let spec: Value = serde_json::from_slice(&spec).unwrap_or_default();
    let path = spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    let parts: Vec<&str> = path.split(':').collect();
    parts.len() == 3 && !parts[0].contains('/')
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::signal::{SigSet, Signal};

    use super::*;

    #[test]
    fn a_runtime_starts_with_no_signal_blocked_as_its_containers_do() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("runtime");
        fs::write(&program, "#!/bin/sh\ngrep ^SigBlk /proc/self/status\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let config = RuntimeConfig {
            program,
            bundle: folder.path().to_owned(),
        };
        let program = Program::new(config, &"c".parse().unwrap(), folder.path());
        // As a monitor does. Other tests have threads of their own.
        let blocked: SigSet = [Signal::SIGUSR1, Signal::SIGALRM].into_iter().collect();
        blocked.thread_block().unwrap();
        let mut command = program.command(&folder.path().join("log"));
        let output = command.stdout(Stdio::piped()).output();
        blocked.thread_unblock().unwrap();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        assert_eq!(text, "SigBlk:\t0000000000000000\n");
    }

    #[test]
    fn systemd_cgroups_path_is_recognised() {
        let bundle = tempfile::tempdir().unwrap();
        for (path, expected) in [
            ("kubepods-besteffort.slice:cri-containerd:abc", true),
            (":prefix:name", true),
            ("/kubepods/abc", false),
            ("/a:b:c", false),
        ] {
            let spec = serde_json::json!({ "linux": { "cgroupsPath": path } });
            fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
            assert_eq!(wants_systemd(bundle.path()), expected, "{path}");
        }
    }
}
