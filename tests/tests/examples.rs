//! The examples that are about a containerd, run by real ones with their output checked. The
//! others are run by `examples/tests/programs.rs`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use reaper_spec::{ContainerId, ExitStatus, Status};
use reaper_state::{SqliteStore, StateStore as _};
use reaper_tests::{
    Node, Options, ctr::Output, image::BUSYBOX, on_each, on_each_with, runtime::until,
    suite::example_program,
};

/// `ctr run` with a shim of the examples, which containerd takes by its path as well as by a name.
fn run(node: &Node, shim: &Path, options: &[&str], id: &str, args: &[&str]) -> Output {
    let mut command = node.ctr_command();
    command
        .args(["run", "--fifo-dir"])
        .arg(node.dir().join("fifo"));
    command.arg("--runtime").arg(shim).args(options);
    Output::of(command.arg(BUSYBOX).arg(id).args(args))
}

#[test]
fn auditing_store_records_container_lifecycle() {
    let folder = tempfile::tempdir().expect("make a folder");
    let log = folder.path().join("audit");
    let options =
        Options::default().env("REAPER_AUDIT_LOG", log.to_str().expect("a path in UTF-8"));
    let shim = example_program("containerd-shim-audit-v2");
    on_each_with(&options, |node| {
        let id = node.name("audited");
        let seen = || -> Vec<String> {
            let audit = fs::read_to_string(&log).expect("read the audit");
            let of = audit.lines().filter_map(|line| line.strip_prefix(&id));
            of.map(str::to_owned).collect()
        };
        run(node, &shim, &["--detach"], &id, &["/bin/sleep", "1092"]).assert_success();
        assert_eq!(seen(), [" creating", " created", " running"]);
        node.ctr(&["task", "kill", "--signal", "SIGKILL", &id])
            .assert_success();
        until("the end is audited", || {
            seen().contains(&" stopped".to_owned()).then_some(())
        });
        node.ctr(&["task", "delete", &id]).assert_success();
        node.ctr(&["container", "delete", &id]).assert_success();
        assert_eq!(seen().last().map(String::as_str), Some(" deleted"));
    });
}

#[test]
fn a_shim_without_its_audit_runs_nothing() {
    let options = Options::default().env("REAPER_AUDIT_LOG", "/no/such/folder/audit");
    let shim = example_program("containerd-shim-audit-v2");
    on_each_with(&options, |node| {
        let output = run(
            node,
            &shim,
            &["--rm"],
            &node.name("refused"),
            &["/bin/true"],
        );
        assert_ne!(output.code, 0, "{output:?}");
        assert!(
            output.stderr.contains("append to /no/such/folder/audit"),
            "{output:?}"
        );
    });
}

#[test]
fn sqlite_shim_records_running_container() {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().to_str().expect("a path in UTF-8");
    let options = Options::default().env("REAPER_SQLITE_FOLDER", path);
    let shim = example_program("containerd-shim-sqlite-v2");
    on_each_with(&options, |node| {
        let id = node.name("kept");
        run(node, &shim, &["--detach"], &id, &["/bin/sleep", "1091"]).assert_success();
        let store = SqliteStore::new(folder.path().join(format!("{}.db", node.marker())));
        let container = ContainerId::new(id.as_str()).expect("an id");
        let record = store.get(&container).expect("a record").record;
        assert_eq!(record.status, Status::Running);
        let listed = node.ctr(&["task", "list"]).assert_success();
        let pid = record.process.expect("a process").pid.to_string();
        assert!(
            listed
                .lines()
                .any(|line| line.contains(&id) && line.contains(&pid)),
            "{pid} in {listed}"
        );
        node.ctr(&["task", "kill", "--signal", "SIGKILL", &id])
            .assert_success();
        let exit = until("the end is in the database", || {
            store.get(&container).expect("a record").record.exit
        });
        assert_eq!(
            exit.status,
            ExitStatus::Signaled {
                signal: 9,
                core: false
            }
        );
        node.ctr(&["task", "delete", &id]).assert_success();
        node.ctr(&["container", "delete", &id]).assert_success();
        assert_eq!(store.list().expect("read the database"), []);
    });
}

#[test]
fn a_watcher_prints_the_life_of_a_container() {
    let program = example_program("watch-tasks");
    on_each(|node| {
        let watcher = Watcher::start(&program, node);
        let mut first = 0;
        // A subscription begins at some moment after the start of the program.
        until("the watcher hears something", || {
            first += 1;
            node.ctr_run(&format!("early-{first}"), &["/bin/true"])
                .assert_success();
            (!watcher.lines().is_empty()).then_some(())
        });
        let output = node.ctr_run("watched", &["/bin/sh", "-c", "exit 6"]);
        assert_eq!(output.code, 6, "{output:?}");
        let id = node.name("watched");
        let lines = until("the watcher hears of the deletion", || {
            let lines = watcher.lines();
            lines.contains(&format!("{id} deleted")).then_some(lines)
        });
        let of: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix(&id))
            .collect();
        let [created, rest @ ..] = &of[..] else {
            panic!("{lines:?}")
        };
        assert!(created.starts_with(" created, pid "), "{created}");
        assert_eq!(rest, [" started", " ended with 6", " deleted"]);
    });
}

/// A running `watch-tasks`, which ends when this is dropped.
struct Watcher {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Watcher {
    fn start(program: &Path, node: &Node) -> Self {
        let mut child = Command::new(program)
            .arg(node.socket())
            .arg(node.marker())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the watcher");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                seen.lock().expect("no panic").push(line);
            }
        });
        Self { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic").clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.child.kill().expect("end the watcher");
        self.child.wait().expect("wait for the watcher");
    }
}
