//! The recipes, each run on a real containerd as a kubelet would run its pods. What a node need not have is a program of
//! the test's: apt-get, mpirun and ansible-playbook say what they were called with, and write a file.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::core::v1::PodTemplateSpec;
use reaper_tests::{
    Node, Options,
    containerd::is_yardstick,
    cri::{Plugins, Pod},
    ctr::Output,
    manifest::{Place, Started, read, template},
    on_each_with,
    runtime::until,
    suite::reaper_program,
};
use serde_json::Value;

use crate::{api_server::ApiServer, folder, manifests};

/// The recipes that are tried here.
const TRIED: [&str; 12] = [
    "ansible.yaml",
    "cluster/namespace-scopes.yaml",
    "hardware-agent.yaml",
    "hpc-mpi.yaml",
    "mixed-deployment.yaml",
    "node-shell.yaml",
    "overlay-diff.yaml",
    "overlay-export.yaml",
    "overlay-list.yaml",
    "overlay-prune.yaml",
    "overlay-reset.yaml",
    "package-test.yaml",
];

/// What stands for programs of a node.
const PROGRAMS: [(&str, &str); 3] = [
    (
        "apt-get",
        "echo \"$*\"; mkdir -p /opt/reaper-recipe && echo hello >/opt/reaper-recipe/hello",
    ),
    (
        "mpirun",
        "echo \"$* in $PWD, $OMP_NUM_THREADS thread, as $(id -u):$(id -g) of $(id -G)\"; echo done >result",
    ),
    (
        "ansible-playbook",
        "echo \"$*\"; grep -q 'dest: /etc/motd.d/maintenance' \"$3\" && \
         echo Sunday >/etc/motd.d/maintenance && echo lost >/etc/reaper-recipe",
    ),
];

/// A node, with the folder of programs in the PATH of its pods.
struct Kitchen<'a> {
    node: &'a Node,
    api: ApiServer,
    plugins: Option<Plugins>,
    pods: AtomicUsize,
    env: Vec<(String, String)>,
}

impl<'a> Kitchen<'a> {
    fn new(node: &'a Node, plugins: Option<Plugins>) -> Self {
        let bin = node.work().join("bin");
        let account = node.work().join("account");
        for dir in [&bin, &account, &node.work().join("host")] {
            fs::create_dir_all(dir).expect("make a folder");
        }
        for (name, script) in PROGRAMS {
            write_program(&bin.join(name), script);
        }
        // The node's first process is one that the test has no right to enter on every machine; it is in the same
        // mount namespace as the test itself.
        let enter = format!(
            "shift 2; exec /usr/bin/nsenter --target {} \"$@\"",
            std::process::id()
        );
        write_program(&bin.join("nsenter"), &enter);
        let runtime = reaper_program("reaper-runtime");
        let runtime = runtime.canonicalize().expect("the path of reaper-runtime");
        symlink(runtime, bin.join("reaper-runtime")).expect("make a link");
        fs::write(account.join("token"), "a-token").expect("write a token");
        fs::write(account.join("ca.crt"), "").expect("write a certificate");
        let api = ApiServer::start();
        let path = |path: PathBuf| path.display().to_string();
        let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let env = [
            ("PATH", format!("{}:{usual}", bin.display())),
            ("REAPER_RUNTIME_ROOT", path(node.state_root())),
            ("REAPER_OVERLAY_BASE", path(node.dir().join("overlay"))),
            ("REAPER_LOG_OUTPUT", path(node.work().join("output"))),
            ("API", api.url.clone()),
            ("ACCOUNT", path(account)),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value)).to_vec();
        Self {
            node,
            api,
            plugins,
            pods: AtomicUsize::new(0),
            env,
        }
    }

    fn host(&self) -> PathBuf {
        self.node.work().join("host")
    }

    /// Starts the pod of each object of a recipe that makes one, by the names of the objects.
    fn start(&self, recipe: &str) -> BTreeMap<String, Started> {
        let objects = read(&folder().join("recipes").join(recipe));
        let place = self.place(&objects);
        let pods = objects.iter().filter_map(|object| {
            let name = object["metadata"]["name"].as_str().expect("a name");
            // Of each its own folders, also where a recipe is run again.
            let pod = format!("{name}-{}", self.pods.fetch_add(1, Ordering::Relaxed));
            Some((name.to_owned(), start(&place, &pod, template(object)?)))
        });
        pods.collect()
    }

    fn place<'b>(&'b self, objects: &'b [Value]) -> Place<'b> {
        Place {
            node: self.node,
            host: self.host(),
            env: self.env.clone(),
            plugins: self.plugins,
            objects,
        }
    }

    /// Runs a recipe's only pod to its end, and returns what its last container has said.
    fn run(&self, recipe: &str) -> (i32, String) {
        let started = self.start(recipe).into_values().next().expect("a pod");
        let (name, id) = started.containers.iter().next().expect("a container");
        let code = self.node.cri().exited(id).exit_code;
        started.pod.stop();
        let log = said(&started.pod, name);
        eprintln!("{recipe}: {code}\n{log}");
        started.pod.remove();
        (code, log)
    }

    fn exec(&self, id: &str, command: &[&str]) -> (i32, String) {
        let answer = self.node.cri().exec_sync(id, command, 30).expect("exec");
        let text = String::from_utf8_lossy(&answer.stdout).into_owned();
        (
            answer.exit_code,
            text + &String::from_utf8_lossy(&answer.stderr),
        )
    }

    fn overlay(&self, args: &[&str]) -> Output {
        let mut command = Command::new(reaper_program("reaper-runtime"));
        Output::of(
            command
                .arg("overlay")
                .args(args)
                .envs(self.env.iter().cloned()),
        )
    }
}

fn write_program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("write a program");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// A class is a handler; that of reaper-v2-pod has its scope by annotation here.
fn start(place: &Place<'_>, name: &str, mut template: PodTemplateSpec) -> Started {
    let class = template
        .spec
        .as_ref()
        .and_then(|spec| spec.runtime_class_name.clone());
    let handler = if class.is_some() { "reaper-v2" } else { "runc" };
    if class.as_deref() == Some("reaper-v2-pod") {
        let metadata = template.metadata.get_or_insert_default();
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert("reaper.runtime/overlay-scope".to_owned(), "pod".to_owned());
    }
    place.run(handler, name, &template)
}

/// What a container has logged, without the streams' names.
fn said(pod: &Pod, container: &str) -> String {
    let lines = pod.log(container).into_iter();
    let lines = lines.map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

fn cook(test: impl Fn(&Kitchen<'_>)) {
    cook_on(Options::default(), test);
}

fn cook_on(options: Options, test: impl Fn(&Kitchen<'_>)) {
    let plugins = options.own_network.then_some(Plugins::Pairs);
    let options = options
        .overlay()
        .env("REAPER_ANNOTATIONS_ALLOW", "overlay-scope");
    on_each_with(&options, |node| {
        if !is_yardstick() {
            test(&Kitchen::new(node, plugins));
        }
    });
}

fn only(pods: BTreeMap<String, Started>) -> (Started, String) {
    let started = pods.into_values().next().expect("a pod");
    let id = started
        .containers
        .values()
        .next()
        .expect("a container")
        .clone();
    (started, id)
}

#[test]
fn every_recipe_is_tried() {
    let all = ["recipes", "recipes/cluster"]
        .into_iter()
        .flat_map(manifests);
    let base = folder().join("recipes");
    let names = all.map(|path| {
        path.strip_prefix(&base)
            .expect("a recipe")
            .display()
            .to_string()
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, TRIED);
}

#[test]
fn an_administrators_shell_is_root_on_the_node_and_its_writes_are_not() {
    cook(|kitchen| {
        let (started, id) = only(kitchen.start("node-shell.yaml"));
        let first = fs::read_to_string("/proc/1/comm").expect("read the first process' name");
        assert_eq!(kitchen.exec(&id, &["cat", "/proc/1/comm"]), (0, first));
        assert_eq!(kitchen.exec(&id, &["id", "-u"]), (0, "0\n".to_owned()));
        let write = "echo x >/etc/reaper-recipe && cat /etc/reaper-recipe";
        assert_eq!(
            kitchen.exec(&id, &["bash", "-lc", write]),
            (0, "x\n".to_owned())
        );
        assert!(!Path::new("/etc/reaper-recipe").exists());
        let outside = "nsenter --target 1 --mount sh -c 'test -e /etc/reaper-recipe || echo clean'";
        assert_eq!(
            kitchen.exec(&id, &["sh", "-c", outside]),
            (0, "clean\n".to_owned())
        );
        started.pod.stop();
        started.pod.remove();
    });
}

#[test]
fn an_mpi_program_runs_as_its_user_in_the_scratch_directory() {
    cook(|kitchen| {
        let scratch = kitchen.host().join("scratch");
        fs::create_dir(&scratch).expect("make a folder");
        chown(&scratch, Some(1000), Some(1000)).expect("chown");
        let (code, log) = kitchen.run("hpc-mpi.yaml");
        assert_eq!(
            (code, log.as_str()),
            (
                0,
                "-n 4 --oversubscribe ./solver case.in in /scratch, 1 thread, as 1000:1000 of 1000 44"
            )
        );
        let result = fs::read_to_string(scratch.join("result"));
        assert_eq!(result.expect("read the result"), "done\n");
    });
}

#[test]
fn an_agent_keeps_its_data_on_the_node_passes_its_probe_and_stops_when_asked() {
    cook(|kitchen| {
        let pods = kitchen.start("hardware-agent.yaml");
        let objects = read(&folder().join("recipes/hardware-agent.yaml"));
        let probe = &objects[1]["spec"]["template"]["spec"]["containers"][0]["livenessProbe"];
        let probe = probe["exec"]["command"]
            .as_array()
            .expect("a command")
            .clone();
        let probe: Vec<_> = probe
            .iter()
            .map(|word| word.as_str().expect("a word"))
            .collect();
        let (started, id) = only(pods);
        until("it has read once", || {
            said(&started.pod, "agent").contains("read ").then_some(())
        });
        assert!(
            kitchen
                .host()
                .join("var/lib/hardware-agent/temperatures")
                .exists()
        );
        let (code, found) = kitchen.exec(&id, &probe);
        // What `find` names is young enough; its exit code says nothing of that.
        assert_eq!(
            (code, found.trim_end()),
            (0, "/var/lib/hardware-agent/temperatures")
        );
        kitchen.node.cri().stop(&id, 10).expect("stop it");
        assert_eq!(kitchen.node.cri().exited(&id).exit_code, 0);
        assert!(said(&started.pod, "agent").ends_with("stopping"));
        started.pod.stop();
        started.pod.remove();
    });
}

#[test]
fn a_playbook_changes_what_is_mounted_and_nothing_else() {
    cook(|kitchen| {
        let (code, log) = kitchen.run("ansible.yaml");
        let call = "--connection=local --inventory=localhost, /playbook/site.yml";
        assert_eq!((code, log.as_str()), (0, call));
        let changed = fs::read_to_string(kitchen.host().join("etc/motd.d/maintenance"));
        assert_eq!(changed.expect("read the file"), "Sunday\n");
        assert!(!Path::new("/etc/reaper-recipe").exists());
    });
}

#[test]
fn a_deployment_on_the_node_and_one_of_an_image_answer_each_other() {
    cook_on(Options::default().own_network(), |kitchen| {
        let pods = kitchen.start("mixed-deployment.yaml");
        let address = |name: &str| pods[name].pod.status().network.expect("a network").ip;
        for (asked, asking) in [("legacy", "web"), ("web", "legacy")] {
            let (asked_pod, asking_pod) = (format!("mixed-{asked}"), format!("mixed-{asking}"));
            // busybox's own wget crashes where it is linked statically, as in Debian.
            let request = r"printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 5";
            let request = format!("{request} {} 8080", address(&asked_pod));
            let ask = ["sh", "-c", &request];
            let id = &pods[&asking_pod].containers["server"];
            let expected = format!("\r\n\r\n{asked}\n");
            until("it answers", || {
                kitchen.exec(id, &ask).1.ends_with(&expected).then_some(())
            });
        }
        assert!(!Path::new("/srv/legacy").exists());
        for started in pods.values() {
            started.pod.stop();
            started.pod.remove();
        }
    });
}

#[test]
fn an_overlay_is_filled_by_a_package_listed_compared_exported_kept_and_reset() {
    cook(|kitchen| {
        let (code, log) = kitchen.run("package-test.yaml");
        let changes = "A /opt/reaper-recipe\nA /opt/reaper-recipe/hello";
        assert_eq!(code, 0);
        // It holds what else was written by pods of the node as well, and here that is nothing.
        assert_eq!(log, changes);
        assert!(!Path::new("/opt/reaper-recipe").exists());

        let (code, log) = kitchen.run("overlay-list.yaml");
        assert!(
            code == 0 && log.lines().any(|line| line.starts_with("node ")),
            "{log}"
        );
        assert_eq!(kitchen.run("overlay-diff.yaml"), (0, changes.to_owned()));
        assert_eq!(kitchen.run("overlay-export.yaml").0, 0);
        let archive = fs::File::open(kitchen.host().join("var/lib/reaper-exports/node.tar"));
        let mut archive = tar::Archive::new(archive.expect("open the archive"));
        let entries = archive.entries().expect("read the archive");
        let paths = entries.map(|entry| {
            let entry = entry.expect("read an entry");
            entry.path().expect("a path").display().to_string()
        });
        assert!(
            paths
                .into_iter()
                .any(|path| path.ends_with("opt/reaper-recipe/hello"))
        );
        // It was used a moment ago, and so stays for its week.
        assert_eq!(kitchen.run("overlay-prune.yaml").0, 0);
        assert_eq!(kitchen.run("overlay-diff.yaml"), (0, changes.to_owned()));
        assert_eq!(kitchen.run("overlay-reset.yaml").0, 0);
        assert_eq!(kitchen.run("overlay-diff.yaml"), (0, String::new()));
    });
}

#[test]
fn an_overlay_in_use_is_not_reset() {
    cook(|kitchen| {
        let (started, id) = only(kitchen.start("node-shell.yaml"));
        kitchen.exec(&id, &["touch", "/opt/reaper-recipe"]);
        let (code, log) = kitchen.run("overlay-reset.yaml");
        assert!(code != 0 && log.contains("in use"), "{code}: {log}");
        assert_eq!(
            kitchen.run("overlay-diff.yaml"),
            (0, "A /opt/reaper-recipe".to_owned())
        );
        started.pod.stop();
        started.pod.remove();
    });
}

#[test]
fn overlays_go_with_their_namespaces_and_no_sooner() {
    cook(|kitchen| {
        let recipe = "cluster/namespace-scopes.yaml";
        for namespace in ["gone", "kept"] {
            let object = serde_json::json!({
                "kind": "Pod", "metadata": { "name": namespace, "namespace": namespace,
                    "annotations": { "reaper.runtime/overlay-scope": "namespace" } },
                "spec": { "runtimeClassName": "reaper-v2", "hostNetwork": true, "containers": [
                    { "name": "write", "command": ["touch", "/opt/reaper-recipe"] },
                ]},
            });
            let place = kitchen.place(&[]);
            let template = template(&object).expect("a pod");
            let (started, id) = only(BTreeMap::from([(
                namespace.to_owned(),
                start(&place, namespace, template),
            )]));
            assert_eq!(kitchen.node.cri().exited(&id).exit_code, 0);
            started.pod.stop();
            started.pod.remove();
        }
        let scopes = || {
            let listed = kitchen.overlay(&["ls", "--json"]).assert_success();
            let scopes: Value = serde_json::from_str(&listed).expect("JSON");
            let scopes = scopes.as_array().expect("a list").iter();
            let names = scopes.map(|scope| scope["name"].as_str().expect("a name").to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(scopes(), ["namespace-gone", "namespace-kept"]);
        // Without an answer nothing is removed.
        kitchen.api.objects().namespaces = None;
        assert_eq!(kitchen.run(recipe).0, 0);
        assert_eq!(scopes().len(), 2);
        kitchen.api.objects().namespaces = Some(vec!["kept".to_owned()]);
        assert_eq!(kitchen.run(recipe).0, 0);
        assert_eq!(scopes(), ["namespace-kept"]);
        kitchen.overlay(&["rm", "namespace-kept"]).assert_success();
    });
}
