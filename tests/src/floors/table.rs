//! The table: what lies on which floor.

/// The modules of a folder by floors, the lowest first.
pub type Floors = &'static [&'static [&'static str]];

/// A crate and the floors of its modules.
#[derive(Debug, Clone, Copy)]
pub struct Crate {
    /// The crate, which is also its folder.
    pub name: &'static str,
    /// Whether the tests fail where imports are wrong. A crate that is not enforced and has no
    /// wrong import fails them as well, so that it becomes so.
    pub enforced: bool,
    /// The floors of `src`.
    pub floors: Floors,
    /// The floors of folders below `src`.
    pub folders: &'static [(&'static str, Floors)],
}

/// All crates by floors, the lowest first.
pub const CRATES: &[&[Crate]] = &[&[SPEC], &[STATE, OVERLAY], &[EXEC], &[SHIM, CLI]];

const SPEC: Crate = Crate {
    name: "reaper-spec",
    enforced: true,
    floors: &[
        &[
            "annotations",
            "cgroups_path",
            "conformance",
            "id",
            "identity",
            "path_hash",
            "status",
            "timestamp",
        ],
        &["exit", "overlay_scope"],
        &["error"],
        &["file", "json"],
        &["process"],
        &["hooks", "namespaces", "resources", "seccomp"],
        &["container_spec"],
        &["policy"],
        &["config"],
        &["bundle"],
    ],
    folders: &[
        (
            "config",
            &[
                &["pod_annotation", "types"],
                &["input"],
                &["policy"],
                &["document", "keys"],
                &["annotations", "container", "load"],
                &["sources"],
            ],
        ),
        (
            "policy",
            &[&["values"], &["rules"], &["mounts"], &["check"]],
        ),
    ],
};

const STATE: Crate = Crate {
    name: "reaper-state",
    enforced: true,
    floors: &[
        &["layout", "lock", "record", "revision"],
        &["folder"],
        &["durable", "store"],
        &["format", "forward", "memory", "migrate"],
        &["file", "sqlite"],
        &["open"],
        &["conformance", "fake"],
    ],
    folders: &[
        ("file", &[&["error"], &["container"]]),
        ("sqlite", &[&["error"], &["schema"], &["database"]]),
        ("conformance", &[&["subject"], &["rules"], &["races"]]),
    ],
};

const OVERLAY: Crate = Crate {
    name: "reaper-overlay",
    enforced: true,
    floors: &[
        &["contract"],
        &["linux"],
        &["mount", "store"],
        &["scope", "volume"],
        &["isolation", "manage"],
        &["fuzzing", "testing"],
    ],
    folders: &[],
};

const EXEC: Crate = Crate {
    name: "reaper-exec",
    enforced: true,
    floors: &[
        &["json", "seccomp", "selinux", "signal", "sys"],
        &["channel"],
        &["descriptors", "scheduling"],
        &["before_exec"],
        &["io", "procfs"],
        &["cgroup", "hooks", "namespaces"],
        &["executor"],
        &["protocol"],
        &["child", "records"],
        &["monitor"],
        &["host"],
        &["engine", "oci"],
        &["conformance", "fake", "fuzzing"],
    ],
    folders: &[(
        "monitor",
        &[
            &["support"],
            &["oci_runtime", "process"],
            &["container"],
            &["operations"],
            &["serve"],
        ],
    )],
};

const SHIM: Crate = Crate {
    name: "reaper-shim",
    enforced: true,
    floors: &[
        &["error", "event"],
        &["process", "stats", "timeout"],
        &["container", "publisher", "sandbox"],
        &["registry"],
        &["service"],
        &["bootstrap"],
    ],
    folders: &[(
        "bootstrap",
        &[
            &[
                "connections",
                "environment",
                "info",
                "log",
                "params",
                "shim",
                "signals",
                "socket",
            ],
            &["monitor_cgroup"],
            &["daemon", "delete", "start"],
        ],
    )],
};

const CLI: Crate = Crate {
    name: "reaper-cli",
    enforced: true,
    floors: &[
        &["text"],
        &["args", "error", "sockets", "sys"],
        &["host", "settings"],
        &[
            "backends",
            "colours",
            "container",
            "log",
            "outcome",
            "pid_file",
            "process",
            "signals",
            "streams",
            "suggest",
            "terminal",
        ],
        &["foreground", "logs", "oci", "stand_in"],
        &["detached", "proxy"],
        &["commands"],
        &["app"],
    ],
    folders: &[
        (
            "commands/node",
            &[
                &["layout"],
                &["handlers"],
                &["record"],
                &["step"],
                &["texts"],
                &["plan"],
                &["disk"],
                &["facts"],
                &["service", "status"],
                &["install"],
                &["uninstall"],
            ],
        ),
        (
            "commands",
            &[
                &["capabilities", "context", "output"],
                &["roots", "selection"],
                &["names", "table"],
                &["finding"],
                &["containerd"],
                &[
                    "completions",
                    "config",
                    "create",
                    "delete",
                    "doctor",
                    "events",
                    "exec",
                    "features",
                    "kill",
                    "list",
                    "logs",
                    "man",
                    "metrics",
                    "migrate",
                    "node",
                    "overlay",
                    "pause",
                    "ps",
                    "spec",
                    "stats",
                    "update",
                    "version",
                    "wait",
                ],
                &["prune", "run", "start", "state"],
            ],
        ),
    ],
};
