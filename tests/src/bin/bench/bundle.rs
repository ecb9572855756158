//! Bundles of a command for a runtime that runs it on the host, and for one that contains it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use reaper_tests::suite::busybox;
use serde_json::{Value, json};

/// A static program at the same path on the host, in the root filesystem made here, and in the
/// tests' image.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// Makes bundles below a folder, with one root filesystem for those that need one.
#[derive(Debug)]
pub(crate) struct Bundles {
    dir: PathBuf,
    marker: String,
    contained: Value,
}

impl Bundles {
    /// Bundles below `dir`, whose cgroups are below `/MARKER`.
    pub(crate) fn new(dir: &Path, marker: &str) -> Self {
        let rootfs = dir.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).expect("make the root filesystem");
        }
        fs::copy(busybox(), rootfs.join("bin/busybox")).expect("copy busybox");
        symlink("busybox", rootfs.join("bin/true")).expect("link true");
        let spec = Command::new("runc").arg("spec").current_dir(dir).status();
        assert!(
            spec.expect("runc is installed").success(),
            "runc spec failed"
        );
        let text = fs::read_to_string(dir.join("config.json")).expect("what runc spec wrote");
        let mut contained: Value = serde_json::from_str(&text).expect("JSON by runc spec");
        contained["process"]["terminal"] = false.into();
        contained["root"] = json!({ "path": rootfs, "readonly": true });
        Self {
            dir: dir.to_owned(),
            marker: marker.to_owned(),
            contained,
        }
    }

    /// Makes the bundle of a command; `contained` as runc's own template has it, else on the
    /// host.
    pub(crate) fn make(
        &self,
        contained: bool,
        id: &str,
        args: &[&str],
        annotations: &Value,
    ) -> PathBuf {
        let mut config = if contained {
            self.contained.clone()
        } else {
            json!({
                "ociVersion": "1.0.2",
                "process": { "cwd": "/", "env": self.contained["process"]["env"] },
                "root": { "path": "rootfs" },
            })
        };
        config["process"]["args"] = args.into();
        config["annotations"] = annotations.clone();
        config["linux"]["cgroupsPath"] = format!("/{}/{id}", self.marker).into();
        let bundle = self.dir.join("bundles").join(id);
        fs::create_dir_all(bundle.join("rootfs")).expect("make a bundle");
        fs::write(bundle.join("config.json"), config.to_string()).expect("write a config.json");
        bundle
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        // Runtimes leave the parent of the cgroups that they were told, in every hierarchy; a
        // measurement that failed leaves more.
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for hierarchy in hierarchies {
            remove_cgroups(&hierarchy.path().join(&self.marker));
        }
    }
}

fn remove_cgroups(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    // Most hierarchies have none.
    let _ = fs::remove_dir(cgroup);
}
