//! podman, with stores, locks and settings of its own, and Reaper as its OCI runtime.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Node, Options,
    ctr::Output,
    image, leftovers,
    suite::{reaper_program, suites},
};

/// The image of [`Podman::run`].
const IMAGE: &str = "localhost/reaper-busybox";

/// Limits that a kernel lets anybody have, the host's network, and nothing outside of the folder.
const SETTINGS: &str = r#"[containers]
cgroups = "no-conmon"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "host"
[engine]
lock_type = "file"
"#;

/// A podman on a node's folder. It has no daemon; what it runs is seen by the node's check for
/// leftovers, and ends with the node.
#[derive(Debug)]
pub struct Podman<'a> {
    node: &'a Node,
    dir: PathBuf,
}

/// Runs a test with a podman, and checks that it left nothing behind.
pub fn with_podman(test: impl FnOnce(&Podman<'_>)) {
    let suite = suites().swap_remove(0);
    let node = Node::start(suite, Options::default());
    test(&Podman::new(&node));
    leftovers::assert_none(&node);
}

impl<'a> Podman<'a> {
    fn new(node: &'a Node) -> Self {
        let dir = node.dir().join("podman");
        fs::create_dir(&dir).expect("make podman's folder");
        fs::write(dir.join("containers.conf"), SETTINGS).expect("write podman's settings");
        write_runtime(node, &dir.join("reaper-runtime"));
        let podman = Self { node, dir };
        let root = podman.dir.join("image.tar");
        image::write_root(&root).expect("write the image's root");
        Output::of(podman.command(&["import"]).arg(root).arg(IMAGE)).assert_success();
        podman
    }

    /// The node that it is on.
    pub fn node(&self) -> &Node {
        self.node
    }

    /// podman, to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        for option in ["root", "runroot", "tmpdir"] {
            command.arg(format!("--{option}"));
            command.arg(self.dir.join(option));
        }
        command
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"])
            .args(["--events-backend=none", "--runtime"])
            .arg(self.dir.join("reaper-runtime"))
            .args(args);
        command
    }

    /// Runs podman to its end.
    pub fn call(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    /// `podman run` with some options of it, to be started.
    pub fn run_command(&self, options: &[&str], args: &[&str]) -> Command {
        let mut command = self.command(&["run", "--cgroup-parent"]);
        command
            .arg(format!("/{}", self.node.marker()))
            .args(options)
            .arg(IMAGE)
            .args(args);
        command
    }

    /// Runs a command by `podman run` with some options of it.
    pub fn run(&self, options: &[&str], args: &[&str]) -> Output {
        Output::of(&mut self.run_command(options, args))
    }
}

/// Writes the program that podman is told to be its runtime: Reaper with the node's folders.
/// Neither podman's environment nor its `--runtime-flag` reaches all calls of the runtime.
fn write_runtime(node: &Node, path: &Path) {
    let configuration = path.with_extension("toml");
    let base = node.dir().join("overlay");
    // podman mounts files that are not on every host, so there has to be an overlay.
    fs::write(&configuration, format!("[overlay]\nbase = {base:?}\n"))
        .expect("write Reaper's configuration");
    let script = format!(
        "#!/bin/sh\nexec {} --root {} --config {} \"$@\"\n",
        reaper_program("reaper-runtime").display(),
        node.state_root().display(),
        configuration.display(),
    );
    fs::write(path, script).expect("write podman's runtime");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .expect("make podman's runtime executable");
}
