//! Upgrades, and the way back, with everything running: from the version that `tests/earlier` has built to
//! this one.
//!
//! The programs are replaced as an installation does it, and containerd is restarted. Shims and
//! monitors that run stay those of the version that started them, so each version is the client of the
//! other's monitors, and reads and removes what the other has recorded.

#![cfg(feature = "earlier")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use reaper_tests::{
    Node, Options,
    api::Streams,
    containerd::is_yardstick,
    cri::{container, messages::Mount},
    ctr::Output,
    faults::{kill, monitor_of, process_named, shim_of},
    leftovers, on_each_with,
    procfs::Process,
    runtime::until,
    spec::Workload,
    suite::{earlier_bin, reaper_bin, suites},
};
use serde_json::{Value, json};

/// A folder with the installed programs.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new(version: &Path) -> Self {
        let installed = Self(tempfile::tempdir_in("/run").expect("make a folder for the programs"));
        installed.replace(version);
        installed
    }

    /// Installs another version, as install(1) does: programs that run are not written to.
    fn replace(&self, version: &Path) {
        for name in ["containerd-shim-reaper-v2", "reaper-runtime"] {
            let new = self.0.path().join("new");
            fs::copy(version.join(name), &new).expect("copy a program");
            fs::rename(new, self.0.path().join(name)).expect("install a program");
        }
    }
}

/// The command line of an installation, with the folders of a node.
struct Runtime<'a> {
    program: PathBuf,
    root: PathBuf,
    base: PathBuf,
    node: &'a Node,
    store: &'static str,
    options: Vec<String>,
}

impl<'a> Runtime<'a> {
    fn new(node: &'a Node, installed: &Installed) -> Self {
        Self {
            program: installed.0.path().join("reaper-runtime"),
            root: node.state_root(),
            base: node.dir().join("overlay"),
            node,
            store: "file",
            options: Vec::new(),
        }
    }

    /// Containers that this store keeps, in a root of their own.
    fn store(mut self, store: &'static str) -> Self {
        self.root = self.node.dir().join(format!("reaper-{store}"));
        self.store = store;
        self
    }

    /// What is said of the containers of containerd's namespaces.
    fn namespace(mut self, name: &str) -> Self {
        self.options = vec!["--namespace".to_owned(), name.to_owned()];
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("REAPER_RUNTIME_ROOT", &self.root)
            .env("REAPER_STORE", self.store)
            .env("REAPER_OVERLAY_BASE", &self.base)
            .env("REAPER_LOG_OUTPUT", self.node.dir().join("output"))
            .env("REAPER_RUNTIME_LOG", self.node.dir().join("logs/runtime"))
            .args(&self.options)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        Output::of(&mut self.command(args))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.call(args).assert_success()
    }

    /// The same for a call whose streams the container keeps.
    #[track_caller]
    fn quietly(&self, args: &[&str]) {
        let mut command = self.command(args);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("call the runtime").success(), "{args:?}");
    }

    fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).expect("a state")
    }

    fn pid(&self, id: &str) -> u32 {
        let pid = self.state(id)["pid"].as_u64().expect("a pid");
        u32::try_from(pid).expect("a pid")
    }

    /// The ids of all containers, sorted.
    fn list(&self) -> Vec<String> {
        let listed = self.ok(&["list", "--quiet"]);
        let mut ids: Vec<_> = listed.lines().map(str::to_owned).collect();
        ids.sort();
        ids
    }
}

/// Runs a test on nodes on which one version is installed, with what installs the other.
fn changing(from: &Path, to: &Path, test: impl Fn(&Node, &Installed, &dyn Fn())) {
    if is_yardstick() {
        return;
    }
    let installed = Installed::new(from);
    let options = Options::default().overlay().programs(installed.0.path());
    on_each_with(&options, |node| {
        installed.replace(from);
        test(node, &installed, &|| {
            node.stop_containerd();
            installed.replace(to);
            node.start_containerd();
        });
    });
}

#[test]
fn containers_and_pods_of_the_earlier_version_are_served_and_removed_after_an_upgrade() {
    pods_go_on(&earlier_bin(), &reaper_bin());
}

#[test]
fn containers_and_pods_of_this_version_are_served_and_removed_after_going_back() {
    pods_go_on(&reaper_bin(), &earlier_bin());
}

#[test]
fn containers_of_the_earlier_command_line_are_served_and_removed_by_this_one() {
    command_line_goes_on(&earlier_bin(), &reaper_bin(), |runtime| {
        // The one thing that their monitors cannot do.
        let refused = runtime.call(&["update", "--memory", "100M", "volume"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(
            refused.stderr.contains("of an earlier version"),
            "{refused:?}"
        );
    });
}

#[test]
fn containers_of_this_command_line_are_served_and_removed_by_the_earlier_one() {
    command_line_goes_on(&reaper_bin(), &earlier_bin(), |_| ());
}

fn pods_go_on(from: &Path, to: &Path) {
    changing(from, to, |node, installed, change| {
        let file = format!("/srv/{}", node.name("file"));
        let point = node.work().join("made/for/the/volume");
        let pod = node.run_pod("lasting");
        let script = format!(
            "echo before >{file}; cat {}/of; exec sleep 1301",
            point.display()
        );
        let mut writer = container("writer", &["/bin/sh", "-c", &script]);
        let volume = node.work().join("volume");
        fs::create_dir(&volume).expect("make a volume");
        fs::write(volume.join("of"), "the volume\n").expect("write to the volume");
        writer.mounts.push(Mount {
            container_path: point.display().to_string(),
            host_path: volume.display().to_string(),
            ..Mount::default()
        });
        let writer = pod.start(&writer);
        until("it has written to the scope", || {
            (pod.log("writer") == ["stdout F the volume"]).then_some(())
        });
        assert!(point.exists(), "a mount point on the node");
        let run = |name: &str| {
            let workload = Workload::new(&["/bin/sleep", "1302"]);
            let id = node.run(name, &workload, &Streams::default());
            let pid = node.api().state(&id, "").expect("a state").pid;
            let process = Process::find(pid).expect("its process");
            (id, process)
        };
        let lasting = run("lasting");
        let bereft = run("bereft");
        let unwatched = run("unwatched");
        let old_shims: Vec<_> = [&lasting, &bereft, &unwatched]
            .iter()
            .map(|(_, process)| shim_of(process.pid))
            .collect();

        change();

        // All go on, and are known.
        let runtime = Runtime::new(node, installed).namespace(node.marker());
        let mut ids: Vec<_> = [&lasting, &bereft, &unwatched]
            .iter()
            .map(|(id, process)| {
                assert!(process.is_alive(), "{id} goes on");
                let state = node.api().state(id, "").expect("a state");
                let state = (state.status().as_str_name(), state.pid);
                assert_eq!(state, ("RUNNING", process.pid));
                assert_eq!(runtime.pid(id), process.pid);
                id.clone()
            })
            .collect();
        ids.sort();
        assert_eq!(runtime.list(), ids);
        for shim in &old_shims {
            assert!(shim.is_alive(), "shims stay");
        }

        // An exec by the shim that runs and one by the command line that is new, and a new container: all in
        // the scope as it is.
        let show = ["cat", &file];
        assert_eq!(
            runtime.ok(&[&["exec", &lasting.0], &show[..]].concat()),
            "before\n"
        );
        let out = node.fifo("out");
        let reading = out.read();
        let streams = Streams::default().stdout(&out);
        let api = node.api();
        api.exec(&lasting.0, "show", &Workload::new(&show), &streams)
            .expect("exec");
        let waiting = api.wait(&lasting.0, "show");
        api.start(&lasting.0, "show").expect("start");
        assert_eq!(waiting.finish().expect("wait").code, 0);
        api.delete_exec(&lasting.0, "show").expect("delete");
        assert_eq!(reading.text(), "before\n");
        let output = node.ctr_run("later", &show);
        assert_eq!(
            (output.code, &*output.stdout),
            (0, "before\n"),
            "{output:?}"
        );

        // A shim that has ended is cleaned up after by the program that is installed now.
        let (id, process) = &bereft;
        let events = node.events();
        kill(&shim_of(process.pid));
        assert_eq!(events.exit_code(id), Some(137));
        assert!(!process.is_alive());
        node.gone(id);

        let (id, process) = &unwatched;
        let waiting = node.api().wait(id, "");
        kill(&monitor_of(process.pid));
        assert_eq!(waiting.finish().expect("wait").code, 137);
        assert_eq!(node.delete(id).code, 137);

        let (id, _) = &lasting;
        let waiting = node.api().wait(id, "");
        runtime.ok(&["kill", id, "TERM"]);
        assert_eq!(waiting.finish().expect("wait").code, 143);
        assert_eq!(node.delete(id).code, 143);

        // The pod gets an exec and a second container, by its own shim, and goes with its volume.
        let pod = pod.on(node);
        let cri = node.cri();
        let exec = cri.exec_sync(&writer, &show, 0).expect("exec");
        assert_eq!(exec.stdout, b"before\n");
        let second = pod.start(&container("second", &show));
        assert_eq!(cri.exited(&second).exit_code, 0);
        pod.stop();
        pod.remove();
        assert!(!point.exists(), "the mount point goes with its last user");

        let runtime = Runtime::new(node, installed);
        assert_eq!(
            runtime.ok(&["overlay", "diff", "node"]),
            format!("A {file}\n")
        );
        runtime.ok(&["overlay", "reset", "node"]);
        assert_eq!(runtime.ok(&["overlay", "diff", "node"]), "");
        runtime.ok(&["overlay", "rm", "node"]);
    });
}

fn command_line_goes_on(from: &Path, to: &Path, also: impl Fn(&Runtime<'_>)) {
    if is_yardstick() {
        return;
    }
    let installed = Installed::new(from);
    let node = Node::start(suites().swap_remove(0), Options::default());
    for store in ["file", "sqlite"] {
        installed.replace(from);
        let runtime = Runtime::new(&node, &installed).store(store);
        let containers = Containers::run(&runtime);
        installed.replace(to);
        containers.are_served(&runtime);
        also(&runtime);
        containers.are_removed(&runtime);
    }
    leftovers::assert_none(&node);
}

/// Containers of each kind, made by one version.
struct Containers<'a> {
    node: &'a Node,
    /// What the first one has written to its scope.
    file: String,
    /// Where its volume is, which the node did not have.
    point: PathBuf,
    /// Of those that live.
    pids: BTreeMap<&'static str, u32>,
}

const ALL: [&str; 6] = ["ended", "gated", "orphan", "own", "plain", "volume"];

impl<'a> Containers<'a> {
    fn run(runtime: &Runtime<'a>) -> Self {
        let node = runtime.node;
        let work = tempfile::tempdir_in(node.work())
            .expect("make a folder")
            .keep();
        let file = format!("/srv/{}", node.name("file"));
        let point = work.join("made/for/the/volume");
        let bundle = |id: &str| {
            let bundle = work.join(id);
            let volume = bundle.join("source");
            fs::create_dir_all(&volume).expect("make a bundle");
            let script = format!(
                "echo before >{file}; echo more >{}/of; exec sleep 1303",
                point.display()
            );
            let config = json!({
                "ociVersion": "1.0.2",
                "process": {
                    "args": ["/bin/sh", "-c", script],
                    "cwd": "/",
                    "env": ["PATH=/usr/bin:/bin"],
                },
                "linux": { "cgroupsPath": format!("/{}/{id}", node.marker()) },
                "mounts": [
                    { "destination": point, "type": "bind", "source": volume, "options": ["bind"] },
                ],
            });
            fs::write(bundle.join("config.json"), config.to_string()).expect("write a bundle");
            bundle.display().to_string()
        };
        for id in ["volume", "gated"] {
            runtime.quietly(&["create", "--bundle", &bundle(id), id]);
        }
        runtime.quietly(&["start", "volume"]);
        let detached = |id: &str, options: &[&str], script: &str| {
            let run = ["run", "--detach", "--name", id];
            let command = ["--", "/bin/sh", "-c", script];
            runtime.quietly(&[&run, options, &command[..]].concat());
        };
        detached("plain", &[], "exec sleep 1304");
        detached("orphan", &[], "exec sleep 1305");
        let own = format!("echo own >{file}; exec sleep 1306");
        detached("own", &["--overlay=container"], &own);
        detached("ended", &[], "exit 7");
        assert_eq!(runtime.ok(&["wait", "ended"]), "7\n");
        until("both have written to their scopes", || {
            let content = |id| runtime.call(&["exec", id, "cat", &file]).stdout;
            (content("volume") == "before\n" && content("own") == "own\n").then_some(())
        });
        let pids = ALL
            .into_iter()
            .filter(|id| *id != "ended")
            .map(|id| (id, runtime.pid(id)));
        let pids = pids.collect();
        Self {
            node,
            file,
            point,
            pids,
        }
    }

    fn are_served(&self, runtime: &Runtime<'_>) {
        assert_eq!(runtime.list(), ALL);
        for (id, pid) in &self.pids {
            assert_eq!(runtime.pid(id), *pid, "{id}");
        }
        let status = |id| runtime.state(id)["status"].clone();
        assert_eq!(
            ["gated", "volume", "ended"].map(status),
            ["created", "running", "stopped"]
        );
        assert_eq!(runtime.state("ended")["exit_code"], 7);
        let pids = runtime.ok(&["ps", "--format", "json", "volume"]);
        assert!(pids.contains(&self.pids["volume"].to_string()), "{pids}");

        for (id, content) in [
            ("volume", "before\n"),
            ("plain", "before\n"),
            ("own", "own\n"),
        ] {
            assert_eq!(
                runtime.ok(&["exec", id, "cat", &self.file]),
                content,
                "{id}"
            );
        }
        assert_eq!(runtime.ok(&["run", "--", "cat", &self.file]), "before\n");
        let of = self.point.join("of");
        let of = of.to_str().expect("a path in UTF-8");
        assert_eq!(runtime.ok(&["exec", "volume", "cat", of]), "more\n");

        let pid_file = self.node.dir().join("exec-pid");
        let exec = ["exec", "--detach", "--pid-file"];
        let pid_file = pid_file.to_str().expect("a path in UTF-8");
        runtime.quietly(&[&exec[..], &[pid_file, "volume", "sleep", "1307"]].concat());
        let pid = fs::read_to_string(pid_file).expect("a pid file");
        let stand_in = Process::find(pid.parse().expect("a pid")).expect("its process");
        let exec = process_named("sleep 1307");
        stand_in.signal(Signal::SIGTERM);
        until("signals reach the exec", || {
            (!exec.is_alive() && !stand_in.is_alive()).then_some(())
        });

        runtime.quietly(&["start", "gated"]);
        assert_eq!(status("gated"), "running");
        runtime.ok(&["pause", "volume"]);
        assert_eq!(status("volume"), "paused");
        runtime.ok(&["resume", "volume"]);
        let figures = runtime.ok(&["events", "--stats", "volume"]);
        assert!(figures.contains("\"memory\""), "{figures}");
    }

    fn are_removed(&self, runtime: &Runtime<'_>) {
        assert!(self.point.exists(), "a mount point on the node");
        for id in ["volume", "gated"] {
            runtime.ok(&["kill", id, "TERM"]);
            assert_eq!(runtime.ok(&["wait", id]), "143\n", "{id}");
            runtime.ok(&["delete", id]);
        }
        assert!(!self.point.exists(), "it goes with its last user");

        kill(&monitor_of(self.pids["orphan"]));
        let state = runtime.state("orphan");
        assert_eq!(
            (&state["status"], &state["exit_code"]),
            (&json!("stopped"), &json!(137))
        );
        for id in ["orphan", "ended"] {
            runtime.ok(&["delete", id]);
        }

        let scopes = runtime.ok(&["overlay", "ls"]);
        let scopes = scopes.lines().filter_map(|line| line.split(' ').next());
        let own = scopes.filter(|name| name.starts_with("container-own"));
        let own = own.collect::<Vec<_>>();
        assert_eq!(own.len(), 1, "{own:?}");
        let changes = format!("A {}\n", self.file);
        for scope in [own[0], "node"] {
            assert_eq!(runtime.ok(&["overlay", "diff", scope]), changes, "{scope}");
        }
        for id in ["plain", "own"] {
            runtime.ok(&["delete", "--force", id]);
        }
        runtime.ok(&["overlay", "reset", "node"]);
        assert_eq!(runtime.ok(&["overlay", "diff", "node"]), "");
        runtime.ok(&["overlay", "rm", "node"]);
        assert_eq!(runtime.list(), [] as [&str; 0]);
    }
}
