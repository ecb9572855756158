//! Bundles of real containers, with busybox as their image.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use reaper_spec::ProcessSpec;
use serde_json::{Value, json};

/// Debian's is linked statically.
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 7] = ["sh", "sleep", "cat", "echo", "stty", "tty", "ls"];

/// Makes the root filesystem of an image.
pub(crate) fn image(at: &Path) {
    for folder in ["bin", "dev", "proc", "tmp"] {
        fs::create_dir_all(at.join(folder)).unwrap();
    }
    // By a program of its own: a copy of a descriptor for writing, which a child of another test
    // could have, keeps it from being executed (ETXTBSY).
    let copied = std::process::Command::new("cp")
        .arg(BUSYBOX)
        .arg(at.join("bin/busybox"))
        .status();
    assert!(copied.unwrap().success());
    for applet in APPLETS {
        symlink("busybox", at.join("bin").join(applet)).unwrap();
    }
}

/// What a bundle's `config.json` says.
pub(crate) fn spec(process: &ProcessSpec, cgroup: &str) -> Value {
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": process.terminal,
            "user": { "uid": 0, "gid": 0 },
            "args": process.args,
            "env": process.env,
            "cwd": process.cwd,
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" },
            ],
        },
    });
    if let Some(size) = process.console_size {
        spec["process"]["consoleSize"] = json!({ "width": size.width, "height": size.height });
    }
    spec
}

/// Writes a bundle with its image below `folder`.
pub(crate) fn write(folder: &Path, spec: &Value) -> PathBuf {
    let bundle = folder.to_owned();
    image(&bundle.join("rootfs"));
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    bundle
}
