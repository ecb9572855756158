//! The daemon while it serves.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use containerd_shim_protos::{
    api::{
        ConnectRequest, CreateTaskRequest, DeleteRequest, StartRequest, StateRequest,
        StateResponse, StatsRequest, Status,
    },
    protobuf::Message,
    shim_async::TaskClient,
    ttrpc::{self, Request, asynchronous::Client, context},
};
use nix::{
    fcntl::OFlag,
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use reaper_exec::procfs;

use crate::harness::{Node, SECRET, Shim};

#[tokio::test]
async fn the_task_api_is_served_in_both_versions() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    for service in ["containerd.task.v2.Task", "containerd.task.v3.Task"] {
        let state = StateRequest {
            id: "pod".into(),
            ..Default::default()
        };
        let request = Request {
            service: service.into(),
            method: "State".into(),
            payload: state.write_to_bytes().unwrap(),
            ..Default::default()
        };
        let answer = shim.client.request(request).await.unwrap();
        let state = StateResponse::parse_from_bytes(&answer.payload).unwrap();
        assert_eq!(state.pid, shim.pid, "{service}");
    }
}

#[tokio::test]
async fn the_sandbox_api_is_unimplemented() {
    let node = Node::new();
    node.bundle("pod", "pod");
    let shim = Shim::connect(&node.start("pod")).await;
    let request = Request {
        service: "containerd.runtime.sandbox.v1.Sandbox".into(),
        method: "Platform".into(),
        ..Default::default()
    };
    let error = shim.client.request(request).await.unwrap_err();
    let ttrpc::Error::RpcStatus(status) = error else {
        panic!("{error}");
    };
    assert_eq!(status.code(), ttrpc::Code::UNIMPLEMENTED);
}

#[tokio::test]
async fn sigterm_or_sigint_shuts_down_idle_shim_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let node = Node::new();
        node.bundle("pod", "pod");
        let shim = Shim::connect(&node.start("pod")).await;
        shim.signal(signal);
        shim.ended();
        assert!(!shim.socket().exists());
    }
}

fn folder(node: &Node, id: &str) -> PathBuf {
    node.root().join("ns/test").join(id)
}

/// The monitor of a container.
fn monitor_of(node: &Node, id: &str) -> Pid {
    let record = fs::read_to_string(folder(node, id).join("state.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    Pid::from_raw(
        record["monitor"]["pid"]
            .as_i64()
            .unwrap()
            .try_into()
            .unwrap(),
    )
}

#[tokio::test]
async fn a_container_whose_monitor_is_stopped_has_figures_and_can_be_killed_and_deleted() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    let bundle = node.bundle("web", "pod");
    let config = r#"{"process":{"args":["/bin/sleep","1000"],"cwd":"/"}}"#;
    fs::write(bundle.join("config.json"), config).unwrap();
    shim.create("web", &bundle).await.unwrap();
    kill(monitor_of(&node, "web"), Signal::SIGSTOP).unwrap();
    let none = || context::with_timeout(0);
    let stats = StatsRequest {
        id: "web".into(),
        ..Default::default()
    };
    let stats = shim.task.stats(none(), &stats).await.unwrap();
    assert!(stats.stats.is_some());
    shim.kill("web", 15).await;
    shim.remove("web").await;
    assert!(!folder(&node, "web").exists());
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
}

#[tokio::test]
async fn a_shim_without_a_free_descriptor_accepts_clients_when_there_is_one() {
    let node = Node::new();
    node.bundle("pod", "pod");
    let shim = Shim::connect(&node.start("pod")).await;
    let limit = |files| {
        let limit = rustix::process::Rlimit {
            current: Some(files),
            maximum: Some(4096),
        };
        let pid = rustix::process::Pid::from_raw(shim.pid.try_into().unwrap());
        rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    };
    let cpu = || {
        let usage = procfs::usage(shim.pid).unwrap();
        Duration::from_nanos(usage.cpu_user_ns + usage.cpu_system_ns)
    };
    limit(3);
    let other = Client::connect(&shim.address).await.unwrap();
    let waiting = tokio::spawn(async move {
        let task = TaskClient::new(other);
        task.connect(context::with_timeout(0), &ConnectRequest::default())
            .await
    });
    let before = cpu();
    // Long enough for a busy loop to show: it would use all of this time, or half of it on a
    // machine that is busy itself.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "it has a descriptor");
    let used = cpu() - before;
    assert!(used < Duration::from_millis(250), "it is busy: {used:?}");
    limit(1024);
    assert_eq!(waiting.await.unwrap().unwrap().shim_pid, shim.pid);
    shim.shutdown().await;
    shim.ended();
}

#[tokio::test]
async fn a_shim_that_is_asked_to_end_does_so_when_its_last_container_has_ended() {
    let node = Node::new();
    let mut log = node.log("pod");
    let shim = node.pod("pod").await;
    let app = node.bundle("app", "pod");
    fs::write(
        app.join("config.json"),
        r#"{"process":{"args":["/bin/sleep","1000000"],"cwd":"/"}}"#,
    )
    .unwrap();
    shim.create("app", &app).await.unwrap();
    shim.signal(Signal::SIGTERM);
    wait_for_line(&mut log, "goes on until its containers have ended");
    let state = StateRequest {
        id: "app".into(),
        ..Default::default()
    };
    let state = shim.task.state(context::with_timeout(0), &state).await;
    assert_eq!(state.unwrap().status, Status::RUNNING.into(), "it serves");
    shim.kill("app", 9).await;
    shim.ended();
    assert!(!shim.socket().exists());
    let deleted = node.command("app", &["delete"]).output().unwrap();
    assert!(deleted.status.success(), "{deleted:?}");
}

#[tokio::test]
async fn a_signal_that_is_not_for_a_shim_does_not_end_it() {
    let node = Node::new();
    let mut log = node.log("pod");
    let shim = node.pod("pod").await;
    for signal in [
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR2,
        Signal::SIGALRM,
    ] {
        shim.signal(signal);
    }
    // What it has is written to its log on this one, and all the others came before.
    shim.signal(Signal::SIGUSR1);
    wait_for_line(&mut log, "container pod");
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
}

/// Reads a log up to a line that has `text`.
fn wait_for_line(log: &mut impl BufRead, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        log.read_line(&mut line).unwrap();
    }
}

#[tokio::test]
async fn unread_log_pipe_does_not_block_the_shim() {
    let node = Node::new();
    let bundle = node.bundle("pod", "pod");
    mkfifo(&bundle.join("log"), Mode::S_IRWXU).unwrap();
    let output = node.command("pod", &["-debug", "start"]).output().unwrap();
    let shim = Shim::connect(&String::from_utf8(output.stdout).unwrap()).await;
    // Each refusal is a line; a pipe holds 64 KiB.
    for _ in 0..2_000 {
        let unknown = StateRequest {
            id: "nobody".into(),
            ..Default::default()
        };
        shim.task
            .state(context::with_timeout(0), &unknown)
            .await
            .unwrap_err();
    }
    let log = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(bundle.join("log"))
        .unwrap();
    let lines = BufReader::new(log).lines().map_while(Result::ok).count();
    assert!(
        (100..2_000).contains(&lines),
        "what fits is kept, the rest dropped: {lines}"
    );
}

#[tokio::test]
async fn daemon_inherits_nothing_from_containerd() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", shim.pid)).unwrap();
    let environment = read("environ");
    assert!(!environment.contains(SECRET), "{environment}");
    assert!(environment.contains("REAPER_RUNTIME_ROOT="));
    assert_eq!(read("comm").trim(), "containerd-shim");
    // Standard streams that nobody waits for.
    for stream in ["fd/0", "fd/1", "fd/2"] {
        let target = fs::read_link(format!("/proc/{}/{stream}", shim.pid)).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    let session = read("stat")
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .nth(3)
        .unwrap()
        .to_owned();
    assert_eq!(session, shim.pid.to_string(), "a session of its own");
}

#[tokio::test]
async fn a_workload_runs_with_its_own_environment_and_leaves_nothing() {
    let node = Node::new();
    let shim = node.pod("pod").await;
    let bundle = node.bundle("app", "pod");
    let script = r#"env; echo oom=$(cat /proc/self/oom_score_adj); exit 3"#;
    let config = format!(
        r#"{{"process":{{"args":["/bin/sh","-c",{script:?}],"cwd":"/","env":["PATH=/usr/bin:/bin","MINE=1"]}}}}"#
    );
    fs::write(bundle.join("config.json"), config).unwrap();
    let output = node.path().join("output");
    let none = || context::with_timeout(0);
    let request = CreateTaskRequest {
        id: "app".into(),
        bundle: bundle.to_str().unwrap().into(),
        stdout: format!("file://{}", output.display()),
        ..Default::default()
    };
    let pid = shim.task.create(none(), &request).await.unwrap().pid;
    let request = StartRequest {
        id: "app".into(),
        ..Default::default()
    };
    assert_eq!(shim.task.start(none(), &request).await.unwrap().pid, pid);
    assert_eq!(shim.wait("app").await, 3);
    let request = DeleteRequest {
        id: "app".into(),
        ..Default::default()
    };
    let deleted = shim.task.delete(none(), &request).await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 3));

    let output = fs::read_to_string(&output).unwrap();
    assert!(output.contains("MINE=1\n"), "{output}");
    assert!(
        !output.contains(SECRET) && !output.contains("REAPER_"),
        "{output}"
    );
    assert!(
        !output.contains("oom=-"),
        "not protected as the shim is: {output}"
    );
    assert!(!node.root().join("ns/test/app").exists());
    let children = format!("/proc/{0}/task/{0}/children", shim.pid);
    assert_eq!(
        fs::read_to_string(children).unwrap(),
        "",
        "no monitor, no zombie"
    );
    shim.remove("pod").await;
}
