//! A runtime's command line, and what it says when a command fails.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reaper_spec::{ContainerId, ExitStatus};
use serde::Deserialize;
use serde_json::Value;

use crate::protocol::Driven;

/// What a runtime, its hooks and helpers are found in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A runtime's program, called for one container.
pub(super) struct Program {
    driven: Driven,
    id: ContainerId,
    /// A state root of the container's own: nothing else can have its id there.
    root: PathBuf,
    systemd: bool,
}

impl Program {
    pub(super) fn new(driven: Driven, id: &ContainerId, folder: &Path) -> Self {
        Self {
            systemd: wants_systemd(&driven.bundle),
            driven,
            id: id.clone(),
            root: folder.join("root"),
        }
    }

    /// A command that logs to `log`; its name and arguments are to be added.
    pub(super) fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.driven.program);
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
        command
    }

    pub(super) fn bundle(&self) -> &Path {
        &self.driven.bundle
    }

    /// `name` with its options and the container's id.
    pub(super) fn on_container(&self, name: &str, options: &[&str]) -> Vec<OsString> {
        let mut arguments = vec![OsString::from(name)];
        arguments.extend(options.iter().map(OsString::from));
        arguments.push(self.id.as_str().into());
        arguments
    }

    /// Ends and removes the container; one that is not there is no error.
    pub(super) fn removal(&self) -> Vec<OsString> {
        self.on_container("delete", &["--force"])
    }

    /// What a command does, for messages: `runc create`.
    pub(super) fn step(&self, name: &str) -> String {
        let program = self.driven.program.file_name().unwrap_or_default();
        format!("{} {name}", program.to_string_lossy())
    }
}

/// Whether the bundle names its cgroup in systemd's form, `SLICE:PREFIX:NAME`, which a runtime
/// understands only when told so. A bundle that cannot be read is the runtime's to report.
fn wants_systemd(bundle: &Path) -> bool {
    let spec = fs::read(bundle.join("config.json")).unwrap_or_default();
    let spec: Value = serde_json::from_slice(&spec).unwrap_or_default();
    let path = spec["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    let parts: Vec<&str> = path.split(':').collect();
    parts.len() == 3 && !parts[0].contains('/')
}

#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// Why a command failed: the last error in its log, which is removed.
pub(super) fn complaint(log: &Path, status: &ExitStatus) -> String {
    let text = fs::read(log).unwrap_or_default();
    let _ = fs::remove_file(log);
    let text = String::from_utf8_lossy(&text);
    let said = text.lines().rev().find_map(|line| {
        let line: Line = serde_json::from_str(line).ok()?;
        matches!(line.level.as_str(), "error" | "fatal" | "panic").then_some(line.msg)
    });
    said.unwrap_or_else(|| match status {
        ExitStatus::Signaled { signal, .. } => format!("it was ended by signal {signal}"),
        other => format!("it ended with {} and without a reason", other.code()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint_of(log: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), log).unwrap();
        complaint(file.path(), &ExitStatus::Exited { code: 1 })
    }

    #[test]
    fn the_last_error_is_the_reason() {
        let log = concat!(
            r#"{"level":"error","msg":"first","time":"t"}"#,
            "\n",
            r#"{"msg":"runc create failed: no such thing","level":"error","time":"t"}"#,
            "\n",
            r#"{"level":"warning","msg":"unrelated"}"#,
            "\nnot json\n",
        );
        assert_eq!(complaint_of(log), "runc create failed: no such thing");
    }

    #[test]
    fn silence_is_said_too() {
        assert_eq!(complaint_of(""), "it ended with 1 and without a reason");
    }

    #[test]
    fn systemds_form_of_a_cgroup_is_seen() {
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
