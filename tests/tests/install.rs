//! `reaper-runtime node`: installed on a node whose containerd knows nothing of Reaper, upgraded, taken out.

use std::{
    env,
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reaper_tests::{
    Node, Options,
    cri::{Pod, container, messages::NamespaceMode},
    on_each_with,
    private::EmptyDirectory,
    runtime::until,
    suite::{reaper_bin, reaper_program},
};

const PROGRAMS: [&str; 2] = ["containerd-shim-reaper-v2", "reaper-runtime"];

/// A node on which nothing is installed, with an /etc/reaper that is the test's own.
struct Bare<'a> {
    node: &'a Node,
    dir: &'a Path,
}

fn on_each_bare(test: impl Fn(&Bare<'_>)) {
    let dir = tempfile::Builder::new()
        .prefix("reaper-install")
        .tempdir_in("/run")
        .expect("make a folder");
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).expect("make a folder for programs");
    let base = dir.path().join("overlay");
    let _own = EmptyDirectory::at(Path::new("/etc/reaper"));
    let options = Options::default()
        .overlay()
        .programs(&bin)
        .env("REAPER_OVERLAY_BASE", base.to_str().expect("UTF-8"));
    on_each_with(&options, |node| {
        node.stop_containerd();
        forget_reaper(&node.dir().join("config.toml"));
        node.start_containerd();
        test(&Bare {
            node,
            dir: dir.path(),
        });
    });
}

/// Takes out the handlers that the tests' nodes have.
fn forget_reaper(config: &Path) {
    let text = fs::read_to_string(config).expect("read the configuration");
    let mut is_kept = true;
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| {
            if line.starts_with('[') {
                is_kept = !line.contains(".runtimes.reaper-");
            }
            is_kept
        })
        .collect();
    assert!(kept.len() < text.len(), "{text}");
    fs::write(config, kept).expect("write the configuration");
}

impl Bare<'_> {
    fn config(&self) -> PathBuf {
        self.node.dir().join("config.toml")
    }

    fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Another containerd of this machine is something that `status` tells.
        let path = env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.node.suite().bin().display());
        let mut command = Command::new(reaper_program("reaper-runtime"));
        command
            .args(["node", arguments[0], "--containerd-config"])
            .arg(self.config())
            .args(&arguments[1..])
            .env("PATH", path)
            .env("REAPER_RUNTIME_ROOT", self.node.state_root())
            .env("REAPER_OVERLAY_BASE", self.dir.join("overlay"))
            .env("REAPER_LOG_OUTPUT", self.dir.join("reaper-logs"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Calls it, and restarts containerd when it wants that: containerd is the test's own child.
    fn call(&self, arguments: &[&str]) -> Result<String, String> {
        let (wanted, done) = (self.dir.join("wanted"), self.dir.join("done"));
        for path in [&wanted, &done] {
            let _ = fs::remove_file(path);
        }
        let line = format!(
            "touch {}; until [ -e {} ]; do sleep 0.1; done",
            wanted.display(),
            done.display()
        );
        let mut command = self.command(arguments);
        if arguments[0] != "status" {
            command.args(["--restart-command", &line]);
        }
        let mut child = command.spawn().expect("start reaper-runtime");
        let mut restarts = 0;
        until("the call ends", || {
            if restarts == 0 && wanted.exists() {
                self.node.stop_containerd();
                self.node.start_containerd();
                restarts += 1;
                File::create(&done).expect("tell that containerd runs");
            }
            child.try_wait().expect("look at the call")
        });
        let output = child.wait_with_output().expect("read what it said");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = text.clone() + &String::from_utf8_lossy(&output.stderr);
        eprintln!(
            "node {arguments:?}: {} restarts, {}\n{said}",
            restarts, output.status
        );
        if output.status.success() {
            Ok(text)
        } else {
            Err(said)
        }
    }

    /// Programs that differ from those that are built, as those of another version do.
    fn other_programs(&self) -> PathBuf {
        let dir = self.dir.join("other");
        fs::create_dir_all(&dir).expect("make a folder");
        for name in PROGRAMS {
            let mut bytes = fs::read(reaper_bin().join(name)).expect("read a program");
            bytes.extend(b"other");
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o755)
                .open(dir.join(name))
                .expect("open a program");
            file.write_all(&bytes).expect("write a program");
        }
        dir
    }

    fn pod(&self, name: &str, handler: &str) -> Pod {
        let mut config = self.node.pod_config(name);
        let linux = config
            .linux
            .as_mut()
            .and_then(|linux| linux.security_context.as_mut());
        let options = linux.and_then(|context| context.namespace_options.as_mut());
        options.expect("namespaces").pid = NamespaceMode::Pod.into();
        self.node
            .run_pod_by(handler, config)
            .unwrap_or_else(|status| panic!("run a pod by {handler}: {status}"))
    }
}

/// What a container of the pod prints that prints its pid.
fn pid_in(node: &Node, pod: &Pod, name: &str) -> u32 {
    let mut config = container(name, &["/bin/sh", "-c", "echo $$"]);
    let linux = config
        .linux
        .as_mut()
        .and_then(|linux| linux.security_context.as_mut());
    let options = linux.and_then(|context| context.namespace_options.as_mut());
    options.expect("namespaces").pid = NamespaceMode::Container.into();
    let id = pod.start(&config);
    assert_eq!(node.cri().exited(&id).exit_code, 0);
    let line = until("its line is logged", || pod.log(name).pop());
    let pid = line.rsplit(' ').next().and_then(|pid| pid.parse().ok());
    pid.unwrap_or_else(|| panic!("no pid in {line}"))
}

#[test]
fn a_node_gets_both_classes_is_upgraded_under_its_pods_and_has_nothing_left() {
    on_each_bare(|bare| {
        let node = bare.node;
        let before = fs::read(bare.config()).expect("read the configuration");
        let bin = bare.bin();
        let (other, new) = (bare.other_programs(), reaper_bin());
        let from = |dir: &Path| dir.to_str().expect("UTF-8").to_owned();
        let (other, new) = (from(&other), from(&new));
        let at = ["--bin-dir", bin.to_str().expect("UTF-8")];
        let install = [&["install", "--from", &other], &at[..]].concat();

        let shown = bare
            .call(&[&install[..], &["--dry-run"]].concat())
            .expect("a dry run");
        assert!(
            shown.contains("+  runtime_type = \"io.containerd.reaper.v2\""),
            "{shown}"
        );
        assert_eq!(fs::read(bare.config()).expect("read"), before);
        let said = bare.call(&install).expect("install");
        assert!(said.contains("containerd ran a command with it"), "{said}");
        assert!(
            bare.call(&install)
                .expect("again")
                .contains("Nothing to do")
        );
        bare.call(&["status"]).expect("nothing is wrong");

        node.ctr_run("once", &["true"]).assert_success();
        let shared = bare.pod("shared", "reaper-v2");
        let own = bare.pod("own", "reaper-v2-pod");
        assert!(pid_in(node, &shared, "here") > 50, "the node's pids");
        assert!(pid_in(node, &own, "there") < 50, "pids of its own");

        let later = upgraded(bare, &new, &shared);
        let refused = bare.call(&["uninstall"]).expect_err("pods run");
        assert!(refused.contains("pods of Reaper run"), "{refused}");
        for pod in [&shared, &own, &later] {
            pod.stop();
            pod.remove();
        }
        bare.call(&["uninstall"]).expect("uninstall");
        assert_eq!(fs::read(bare.config()).expect("read"), before);
        let left = |dir: &Path| fs::read_dir(dir).expect("list").count();
        assert_eq!((left(&bin), left(Path::new("/etc/reaper"))), (0, 0));
        assert!(
            !bare
                .config()
                .with_file_name("config.toml.before-reaper")
                .exists()
        );
        for gone in [
            bare.dir.join("overlay"),
            node.state_root(),
            bare.dir.join("reaper-logs"),
        ] {
            assert!(!gone.exists(), "{}", gone.display());
        }
        let failed = node.run_pod_by("reaper-v2", node.pod_config("late"));
        assert!(
            failed
                .expect_err("no handler")
                .message()
                .contains("reaper-v2")
        );
    });
}

/// Upgrades to the programs in `new` while the pod `shared` and another one run, and returns a third.
fn upgraded(bare: &Bare<'_>, new: &str, shared: &Pod) -> Pod {
    let node = bare.node;
    let running = shared.start(&container("running", &["/bin/sleep", "1000"]));
    let said = bare.call(&["upgrade", "--from", new]).expect("upgrade");
    assert!(
        !said.contains("ran a command"),
        "containerd is not restarted: {said}"
    );
    let status = bare.call(&["status"]).expect("nothing is wrong");
    assert!(
        status.contains("0 of the installed version, 2 of earlier ones"),
        "{status}"
    );
    let later = bare.pod("later", "reaper-v2");
    let status = bare.call(&["status"]).expect("nothing is wrong");
    assert!(
        status.contains("1 of the installed version, 2 of earlier ones"),
        "{status}"
    );
    node.cri()
        .stop(&running, 10)
        .expect("stop what the earlier version started");
    later
}
