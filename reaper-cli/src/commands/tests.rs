mod fake;

use std::{path::Path, sync::Arc};

use clap::Parser;
use reaper_spec::Config;

use self::fake::Fake;
use super::*;
use crate::{args::Cli, colours::Colours, host::ContainerEngine};

/// The pid of the process that stands for a container.
const STAND_IN: u32 = 7041;

/// A container called `c` of a bundle of its own, over a fake executor.
struct Rig {
    fake: Arc<Fake>,
    containers: Option<ContainerEngine>,
    bundle: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let (fake, containers) = Fake::new(&bundle.path().join("root"));
        let config = r#"{"process": {"args": ["init"], "cwd": "/srv", "env": ["A=1"]}}"#;
        std::fs::write(bundle.path().join("config.json"), config).unwrap();
        Self {
            fake,
            containers: Some(containers),
            bundle,
        }
    }

    fn bundle(&self) -> &Path {
        self.bundle.path()
    }

    /// Does what the command line says, and returns the outcome and what was printed.
    fn call(&mut self, line: &str) -> (Result<ExitAction>, String) {
        let args = std::iter::once("reaper-runtime").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(args).unwrap();
        let store = Arc::clone(self.containers.as_ref().unwrap().store());
        let next = self.containers.take().unwrap();
        let host = Arc::clone(next.executor());
        let root = next.root().clone();
        let call = CommandContext {
            containers: next,
            open: crate::backends::open,
            config: Config::default(),
            config_file: None,
            one_namespace: false,
            stand_in: Some(Box::new(|_| Ok(STAND_IN))),
            sockets: crate::sockets::Sockets::default(),
            preserved: Vec::new(),
            log_format: cli.global.log_format,
            colours: Colours::default(),
        };
        let mut out = Vec::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome =
            runtime.block_on(run(call, cli.command.unwrap(), &HelperRole::None, &mut out));
        self.containers = Some(reaper_exec::Engine::new(host, store, root));
        (outcome, String::from_utf8(out).unwrap())
    }

    /// The same, where it must succeed.
    fn done(&mut self, line: &str) -> String {
        let (outcome, out) = self.call(line);
        assert_eq!(outcome.unwrap(), ExitAction::DONE, "{line}");
        out
    }

    /// The same, where it must fail: the message.
    fn failed(&mut self, line: &str) -> String {
        let error = self.call(line).0.unwrap_err().line();
        assert!(!error.contains('\n'), "one line: {error:?}");
        error
    }

    fn create(&mut self, options: &str) {
        let line = format!("{options} --bundle {} c", self.bundle().display());
        self.done(&line);
    }
}

#[test]
fn container_created_without_pid_file_gets_streams_of_start() {
    let mut rig = Rig::new();
    rig.create("create");
    rig.done("start c");
    assert_eq!(
        rig.fake.calls(),
        [r#"create ["init"] mirror=false"#, "start with 3 streams"]
    );
}

#[test]
fn container_created_with_pid_file_keeps_streams_of_create() {
    let mut rig = Rig::new();
    let pid_file = rig.bundle().join("pid");
    rig.create(&format!("create --pid-file {}", pid_file.display()));
    assert_eq!(
        std::fs::read_to_string(pid_file).unwrap(),
        STAND_IN.to_string(),
        "neither the monitor's pid nor the process's"
    );
    rig.done("start c");
    assert_eq!(
        rig.fake.calls(),
        [r#"create ["init"] mirror=true"#, "start"]
    );

    let mut rig = Rig::new();
    rig.create("--log-format json create");
    rig.done("start c");
    assert_eq!(rig.fake.calls().last().unwrap(), "start");
}

#[test]
fn a_pid_file_that_cannot_be_written_undoes_the_container() {
    let mut rig = Rig::new();
    let line = format!(
        "create --pid-file /nowhere/at/all --bundle {} c",
        rig.bundle().display()
    );
    assert!(rig.failed(&line).contains("/nowhere/at/all"));
    assert!(rig.failed("state c").contains("does not exist"));
}

#[test]
fn start_with_a_bundle_creates_what_does_not_exist() {
    let mut rig = Rig::new();
    let line = format!("start c --bundle {}", rig.bundle().display());
    rig.done(&line);
    assert_eq!(
        rig.fake.calls(),
        [r#"create ["init"] mirror=false"#, "start"]
    );
    assert!(
        rig.failed(&line).contains("running"),
        "it exists now, and runs"
    );
}

#[test]
fn command_errors_name_the_remedy() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.failed("state c"),
        "container c does not exist: see `reaper-runtime list`"
    );
    rig.create("create");
    let again = format!("create --bundle {} c", rig.bundle().display());
    assert!(rig.failed(&again).contains("`reaper-runtime delete c`"));
    assert!(rig.failed("delete c").contains("kill it first"));
    assert!(rig.failed("run --bundle /nowhere x").contains("/nowhere"));
}

#[test]
fn kill_of_stopped_container_succeeds_and_of_missing_one_fails() {
    let mut rig = Rig::new();
    assert!(rig.failed("kill c").contains("does not exist"));
    rig.create("create");
    rig.done("kill c USR1");
    rig.fake.end(3);
    rig.done("kill c");
    assert_eq!(rig.fake.calls()[1..], ["kill SIGUSR1"]);
}

#[test]
fn forced_delete_of_missing_container_succeeds() {
    let mut rig = Rig::new();
    assert!(rig.failed("delete c").contains("does not exist"));
    rig.done("delete --force c");
    rig.create("create");
    rig.done("delete --force c");
    assert_eq!(rig.fake.calls()[1..], ["kill SIGKILL", "delete"]);
}

#[test]
fn state_and_wait_report_exit_code() {
    let mut rig = Rig::new();
    rig.create("create");
    let state: serde_json::Value = serde_json::from_str(&rig.done("state c")).unwrap();
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&"created".into(), &42.into())
    );
    rig.fake.end(7);
    assert_eq!(rig.done("wait c"), "7\n");
    let state: serde_json::Value = serde_json::from_str(&rig.done("state c")).unwrap();
    assert_eq!(
        (&state["status"], &state["exit_code"]),
        (&"stopped".into(), &7.into())
    );
}

#[test]
fn list_and_ps_print_tables_and_json() {
    let mut rig = Rig::new();
    assert_eq!(rig.done("list --format json"), "[]\n");
    rig.create("create");
    assert_eq!(rig.done("list -q"), "c\n");
    assert!(rig.done("list").contains("created"));
    let list: serde_json::Value = serde_json::from_str(&rig.done("list -f json")).unwrap();
    assert_eq!(list[0]["id"], "c");
    let pids: serde_json::Value = serde_json::from_str(&rig.done("ps c -f json")).unwrap();
    assert_eq!(pids, serde_json::json!([42]));
}

#[test]
fn events_stats_print_json_in_runcs_form() {
    let mut rig = Rig::new();
    rig.create("create");
    let line = rig.done("events --stats c");
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["type"], "stats");
    assert_eq!(event["data"]["cpu"]["usage"]["total"], 7);
    assert_eq!(event["data"]["pids"]["current"], 1);
    rig.fake.end(0);
    assert!(rig.failed("events --stats c").contains("stopped"));
}

#[test]
fn exec_is_refused_unless_the_container_runs() {
    let mut rig = Rig::new();
    rig.create("create");
    assert!(rig.failed("exec c true").contains("created"));
    rig.done("start c");
    let error = rig.failed("exec --cwd www c nope");
    assert_eq!(error, "exec nope: No such file or directory");
    let calls = rig.fake.calls();
    assert_eq!(calls[2], r#"exec ["nope"] in "/srv/www""#);
    assert_eq!(calls.last().unwrap(), "delete", "nothing of it is left");
}

#[test]
fn pause_and_resume_change_the_state() {
    let mut rig = Rig::new();
    rig.create("create");
    rig.done("start c");
    rig.done("pause c");
    assert!(rig.done("state c").contains("paused"));
    rig.done("resume c");
    assert!(rig.done("state c").contains("running"));
}

#[test]
fn detached_terminal_requires_console_socket() {
    let mut rig = Rig::new();
    let config = r#"{"process": {"args": ["sh"], "terminal": true}}"#;
    std::fs::write(rig.bundle().join("config.json"), config).unwrap();
    let bundle = rig.bundle().display().to_string();
    for line in ["create", "run --detach"] {
        let error = rig.failed(&format!("{line} --bundle {bundle} c"));
        assert!(error.contains("--console-socket"), "{error}");
    }
    assert_eq!(rig.fake.calls(), Vec::<String>::new());
}

#[test]
fn features_version_and_spec_print_expected_output() {
    let mut rig = Rig::new();
    let version = rig.done("version");
    assert!(version.starts_with("reaper-runtime version "), "{version}");
    assert!(version.contains("\nspec: "), "{version}");
    let features: serde_json::Value = serde_json::from_str(&rig.done("features")).unwrap();
    let seccomp = &features["linux"]["seccomp"];
    assert_eq!(seccomp["enabled"], cfg!(feature = "seccomp"));
    let systemd = &features["linux"]["cgroup"]["systemd"];
    assert_eq!(*systemd, cfg!(feature = "systemd"));
    let capabilities = features["linux"]["capabilities"].as_array().unwrap();
    assert!(capabilities.contains(&"CAP_CHECKPOINT_RESTORE".into()));

    let dir = tempfile::tempdir().unwrap();
    let spec = format!("spec --bundle {}", dir.path().display());
    rig.done(&spec);
    reaper_spec::Bundle::load(dir.path()).unwrap();
    assert!(rig.failed(&spec).contains("exists already"));
}
