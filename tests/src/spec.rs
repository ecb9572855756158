//! Bundles, as containerd's clients make them.

use serde_json::{Value, json};

use crate::{Node, containerd::makes_containers, suite};

/// A command to run, with what differs from the usual.
#[derive(Debug, Clone)]
pub struct Workload {
    process: Value,
    annotations: Value,
    hooks: Value,
}

impl Workload {
    /// A command, in `/`, with a usual PATH.
    pub fn new(args: &[&str]) -> Self {
        Self {
            process: json!({
                "args": args,
                "cwd": "/",
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "user": { "uid": 0, "gid": 0 },
            }),
            annotations: json!({}),
            hooks: Value::Null,
        }
    }

    /// A line of shell.
    pub fn shell(script: &str) -> Self {
        Self::new(&["/bin/sh", "-c", script])
    }

    /// With the ids of a user and a group.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.process["user"] = json!({ "uid": uid, "gid": gid });
        self
    }

    /// With a terminal.
    #[must_use]
    pub fn terminal(mut self) -> Self {
        self.process["terminal"] = true.into();
        self
    }

    /// With a field of the OCI process set.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.process[field] = value;
        self
    }

    /// With an annotation.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations[key] = value.into();
        self
    }

    /// With OCI's hooks.
    #[must_use]
    pub fn hooks(mut self, hooks: Value) -> Self {
        self.hooks = hooks;
        self
    }

    /// Whether it has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.process["terminal"] == true
    }

    /// The OCI process.
    pub fn process(&self) -> &Value {
        &self.process
    }

    /// The config.json of a container of that id on a node.
    pub fn config(&self, node: &Node, id: &str) -> Value {
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": self.process,
            "root": { "path": "rootfs" },
            "annotations": self.annotations,
            "hooks": self.hooks,
            "linux": { "cgroupsPath": format!("/{}/{id}", node.marker()) },
        });
        if makes_containers() {
            let busybox = suite::busybox();
            config["root"]["readonly"] = false.into();
            config["linux"]["namespaces"] = json!([{ "type": "pid" }, { "type": "mount" }]);
            config["mounts"] = json!([
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/run", "type": "bind", "source": "/run", "options": ["rbind"] },
                { "destination": "/bin", "type": "bind", "source": "/bin", "options": ["rbind"] },
                { "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind"] },
                { "destination": "/lib", "type": "bind", "source": "/lib", "options": ["rbind"] },
                { "destination": "/lib64", "type": "bind", "source": "/lib64", "options": ["rbind"] },
                { "destination": "/busybox", "type": "bind", "source": busybox, "options": ["bind"] },
            ]);
        }
        config
    }
}
