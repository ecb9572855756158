//! What each request means, and that each is answered.

use std::{sync::Arc, time::Duration};

use containerd_shim_protos::{
    api::*,
    protobuf::{MessageField, well_known_types::any::Any},
    shim_async::Task,
    ttrpc::{Code, r#async::TtrpcContext},
};
use reaper_exec::{Engine, Error, FakeCall as Call, HostExecutor};
use reaper_shim::{Settings, TaskService};
use reaper_state::{MemoryStore, StateRoot, StateStore};
use tokio::time::{Instant, timeout};

use crate::common::{Recorder, code, exec, init, message, settle, shim, write_bundle};

#[tokio::test]
async fn delete_refuses_running_task_and_deleted_task_is_not_found() {
    let shim = shim();
    shim.run("web").await;
    assert_eq!(
        code(shim.delete("web", "").await),
        Code::FAILED_PRECONDITION
    );
    shim.fake.exit(&init("web"), 0);
    shim.delete("web", "")
        .await
        .expect("its exit may be on its way when it is deleted");
    assert_eq!(code(shim.delete("web", "").await), Code::NOT_FOUND);
    assert_eq!(code(shim.kill("web", "", 9).await), Code::NOT_FOUND);
    assert_eq!(code(shim.state("web", "").await), Code::NOT_FOUND);
    assert_eq!(code(shim.wait("web", "").await), Code::NOT_FOUND);
    assert!(!shim.fake.exists(&init("web")));
    assert!(shim.store.list().unwrap().is_empty());
}

#[tokio::test]
async fn one_of_two_concurrent_deletes_succeeds() {
    let shim = shim();
    shim.run("web").await;
    shim.fake.exit(&init("web"), 0);
    shim.wait("web", "").await.unwrap();
    let (one, other) = tokio::join!(shim.delete("web", ""), shim.delete("web", ""));
    let failed = [one, other]
        .into_iter()
        .filter(Result::is_err)
        .collect::<Vec<_>>();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        shim.events
            .seen()
            .iter()
            .filter(|e| e.starts_with("delete"))
            .count(),
        1
    );
}

#[tokio::test]
async fn delete_kills_created_task_that_never_started() {
    let shim = shim();
    shim.create("web").await.unwrap();
    assert_eq!(shim.delete("web", "").await.unwrap().exit_status, 137);
    assert_eq!(
        shim.events.seen(),
        ["create web", "exit web 137", "delete web 137"]
    );
    shim.create("web").await.expect("its id is free again");
}

#[tokio::test]
async fn duplicate_container_and_exec_ids_are_refused() {
    let shim = shim();
    shim.run("web").await;
    assert_eq!(code(shim.create("web").await), Code::ALREADY_EXISTS);
    let (one, other) = tokio::join!(shim.exec("web", "probe"), shim.exec("web", "probe"));
    assert!(one.is_ok() != other.is_ok());
    assert_eq!(
        code(if one.is_err() { one } else { other }),
        Code::ALREADY_EXISTS
    );
    assert_eq!(shim.fake.calls(Call::Exec), 1);
}

#[tokio::test]
async fn delete_of_exec_publishes_no_event() {
    let shim = shim();
    shim.run("web").await;
    shim.exec("web", "probe").await.unwrap();
    shim.start("web", "probe").await.unwrap();
    assert_eq!(
        code(shim.delete("web", "probe").await),
        Code::FAILED_PRECONDITION
    );
    shim.kill("web", "probe", 9).await.unwrap();
    shim.wait("web", "probe").await.unwrap();
    assert_eq!(shim.delete("web", "probe").await.unwrap().exit_status, 137);
    assert!(!shim.fake.exists(&exec("web", "probe")));
    assert!(
        !shim
            .events
            .seen()
            .iter()
            .any(|event| event.starts_with("delete"))
    );
    assert_eq!(code(shim.state("web", "probe").await), Code::NOT_FOUND);
    shim.exec("web", "probe")
        .await
        .expect("its id is free again");
}

#[tokio::test]
async fn an_exec_needs_a_container_that_runs() {
    let shim = shim();
    shim.create("web").await.unwrap();
    let refused = shim.exec("web", "probe").await;
    assert!(message(refused).contains("created"));
    assert_eq!(code(shim.exec("nobody", "probe").await), Code::NOT_FOUND);
}

#[tokio::test]
async fn an_exec_of_a_paused_container_reads_as_paused() {
    let shim = shim();
    shim.run("web").await;
    shim.exec("web", "probe").await.unwrap();
    shim.start("web", "probe").await.unwrap();
    let request = PauseRequest {
        id: "web".into(),
        ..Default::default()
    };
    shim.service
        .pause(&TtrpcContext::default(), request)
        .await
        .unwrap();
    assert_eq!(shim.status("web", "").await, Status::PAUSED);
    assert_eq!(shim.status("web", "probe").await, Status::PAUSED);
    let request = ResumeRequest {
        id: "web".into(),
        ..Default::default()
    };
    shim.service
        .resume(&TtrpcContext::default(), request)
        .await
        .unwrap();
    assert_eq!(shim.status("web", "probe").await, Status::RUNNING);
    assert_eq!(shim.events.seen()[4..], ["paused web", "resumed web"]);
}

#[tokio::test]
async fn connect_returns_shim_pid_even_for_unknown_ids() {
    let shim = shim();
    let pid = shim.create("web").await.unwrap().pid;
    let known = shim.connect("web").await;
    assert_eq!((known.shim_pid, known.task_pid), (std::process::id(), pid));
    assert_eq!(shim.connect("nobody").await.task_pid, 0);
    assert_eq!(shim.connect("../no/id").await.shim_pid, std::process::id());
}

#[tokio::test]
async fn a_shim_with_containers_does_not_shut_down() {
    let shim = shim();
    shim.run("web").await;
    shim.shutdown().await;
    assert!(
        timeout(Duration::from_millis(1), shim.service.closed())
            .await
            .is_err()
    );
    shim.kill("web", "", 9).await.unwrap();
    shim.wait("web", "").await.unwrap();
    shim.delete("web", "").await.unwrap();
    shim.shutdown().await;
    shim.service.closed().await;
    assert_eq!(code(shim.create("late").await), Code::UNAVAILABLE);
}

#[tokio::test]
async fn unsupported_requests_are_unimplemented() {
    let shim = shim();
    shim.run("web").await;
    let context = TtrpcContext::default();
    // By the executor: the service passes the limits on to it.
    let update = |json: &str| UpdateTaskRequest {
        id: "web".into(),
        resources: MessageField::some(Any {
            value: json.into(),
            ..Any::default()
        }),
        ..UpdateTaskRequest::default()
    };
    let unsupported = Error::Unsupported {
        operation: "update".into(),
        reason: "no cgroup".into(),
    };
    shim.fake.fail_next(Call::Update, unsupported);
    let updated = shim.service.update(&context, update("{}")).await;
    assert_eq!(code(updated), Code::UNIMPLEMENTED);
    let wrong = shim.service.update(&context, update("[]")).await;
    assert_eq!(code(wrong), Code::INVALID_ARGUMENT);
    let request = CheckpointTaskRequest {
        id: "web".into(),
        ..Default::default()
    };
    let checkpointed = shim.service.checkpoint(&context, request).await;
    let said = format!("{checkpointed:?}");
    assert!(said.contains("cannot checkpoint container web: "), "{said}");
    assert_eq!(code(checkpointed), Code::UNIMPLEMENTED);
    let unsupported = Error::Unsupported {
        operation: "pause".into(),
        reason: "no cgroup".into(),
    };
    shim.fake.fail_next(Call::Pause, unsupported);
    let request = PauseRequest {
        id: "web".into(),
        ..Default::default()
    };
    assert_eq!(
        code(shim.service.pause(&context, request).await),
        Code::UNIMPLEMENTED
    );
}

#[tokio::test]
async fn a_creation_that_fails_leaves_nothing() {
    let shim = shim();
    let setup = Error::Setup {
        step: "open /run/out".into(),
        message: "gone".into(),
        errno: None,
    };
    shim.fake.fail_next(Call::Create, setup);
    assert!(message(shim.create("web").await).contains("open /run/out"));
    assert!(shim.events.seen().is_empty());
    assert!(shim.store.list().unwrap().is_empty());
    shim.create("web").await.expect("its id is free again");
}

#[tokio::test]
async fn unreadable_bundle_or_invalid_id_is_refused() {
    let shim = shim();
    let missing = CreateTaskRequest {
        id: "web".into(),
        bundle: "/does/not/exist".into(),
        ..Default::default()
    };
    let refused = shim.service.create(&TtrpcContext::default(), missing).await;
    assert!(message(refused).contains("/does/not/exist"));
    assert_eq!(
        code(shim.create_as("web", "[]", "").await),
        Code::INVALID_ARGUMENT
    );
    assert_eq!(code(shim.state("../web", "").await), Code::INVALID_ARGUMENT);
}

#[tokio::test]
async fn panic_in_a_request_is_returned_as_error() {
    let shim = shim();
    shim.run("web").await;
    shim.fake.panic_next(Call::Stats);
    let answer = shim.stats("web").await;
    assert!(message(answer).contains("scripted in Stats"));
    shim.stats("web").await.expect("the next one is served");
}

#[tokio::test]
async fn panic_in_start_does_not_block_the_exit() {
    let shim = shim();
    shim.create("web").await.unwrap();
    shim.fake.panic_next(Call::Start);
    assert_eq!(code(shim.start("web", "").await), Code::INTERNAL);
    shim.fake.exit(&init("web"), 4);
    assert_eq!(shim.wait("web", "").await.unwrap().exit_status, 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_is_answered() {
    let shim = shim();
    shim.run("web").await;
    for call in [Call::Stats, Call::Pids, Call::Kill, Call::State] {
        shim.fake.hold(call);
    }
    let before = Instant::now();
    assert_eq!(code(shim.stats("web").await), Code::DEADLINE_EXCEEDED);
    assert_eq!(code(shim.kill("web", "", 9).await), Code::DEADLINE_EXCEEDED);
    assert!(before.elapsed() < Duration::from_secs(61));
    let before = Instant::now();
    assert_eq!(
        shim.status("web", "").await,
        Status::RUNNING,
        "as far as the shim knows"
    );
    assert!(
        before.elapsed() < Duration::from_secs(2),
        "containerd waits two seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn a_creation_that_hangs_is_undone() {
    let shim = shim();
    shim.fake.hold(Call::Create);
    assert_eq!(code(shim.create("web").await), Code::DEADLINE_EXCEEDED);
    assert!(shim.store.list().unwrap().is_empty());
    assert!(shim.events.seen().is_empty());
    shim.fake.release(Call::Create);
    shim.create("web").await.expect("its id is free again");
}

#[tokio::test]
async fn a_signal_is_sent_though_the_monitor_does_not_answer() {
    let shim = shim();
    shim.run("web").await;
    let silent = || Error::Unresponsive {
        target: init("web"),
        monitor: 4711,
    };
    shim.fake.fail_next(Call::Kill, silent());
    // After an error containerd would not send the SIGKILL that follows.
    shim.kill("web", "", 15).await.unwrap();
    shim.wait("web", "").await.unwrap();
    shim.delete("web", "").await.unwrap();
}

#[tokio::test]
async fn kill_and_state_do_not_wait_for_a_start() {
    let shim = shim();
    shim.create("web").await.unwrap();
    shim.fake.hold(Call::Start);
    let (started, ()) = tokio::join!(shim.start("web", ""), async {
        settle().await;
        assert_eq!(shim.status("web", "").await, Status::CREATED);
        shim.kill("web", "", 9).await.unwrap();
        shim.fake.release(Call::Start);
    });
    assert_eq!(code(started), Code::FAILED_PRECONDITION, "it came too late");
    assert_eq!(shim.wait("web", "").await.unwrap().exit_status, 137);
}

#[tokio::test]
async fn create_continues_after_client_disconnects() {
    let shim = shim();
    shim.fake.hold(Call::Create);
    assert!(
        timeout(Duration::from_millis(1), shim.create("web"))
            .await
            .is_err()
    );
    shim.fake.release(Call::Create);
    assert_eq!(shim.events.until(1).await, ["create web"]);
    settle().await;
    shim.start("web", "")
        .await
        .expect("a client that comes back finds it");
}

#[tokio::test]
async fn stats_have_a_type_known_to_containerd() {
    let shim = shim();
    shim.run("web").await;
    let figures = shim.stats("web").await.unwrap().stats.unwrap();
    assert!(
        [
            "io.containerd.cgroups.v1.Metrics",
            "io.containerd.cgroups.v2.Metrics"
        ]
        .contains(&figures.type_url.as_str()),
        "{}",
        figures.type_url
    );
    assert!(!figures.value.is_empty());
    shim.fake.exit(&init("web"), 0);
    shim.wait("web", "").await.unwrap();
    assert_eq!(code(shim.stats("web").await), Code::NOT_FOUND);
}

#[tokio::test]
async fn pids_carry_their_exec_ids() {
    let shim = shim();
    shim.run("web").await;
    shim.exec("web", "probe").await.unwrap();
    let request = PidsRequest {
        id: "web".into(),
        ..Default::default()
    };
    let answer = shim
        .service
        .pids(&TtrpcContext::default(), request)
        .await
        .unwrap();
    let named = answer
        .processes
        .iter()
        .filter(|process| process.info.is_some())
        .count();
    assert_eq!((answer.processes.len(), named), (2, 1));
}

#[tokio::test]
async fn both_versions_of_the_task_api_are_registered() {
    let names: Vec<String> = shim().service.services().into_keys().collect();
    assert!(
        names.contains(&"containerd.task.v2.Task".to_owned()),
        "{names:?}"
    );
    assert!(
        names.contains(&"containerd.task.v3.Task".to_owned()),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_shim_that_forgot_to_become_its_monitor_answers_so_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle");
    write_bundle(&bundle, r#"["/bin/true"]"#, "");
    let root = StateRoot::new(folder.path().join("root"));
    // This program is no monitor.
    let executor = HostExecutor::new(root.clone());
    let engine = Engine::new(executor, Arc::new(MemoryStore::new()), root);
    let service = TaskService::new(engine, Recorder::default(), Settings::default());
    for terminal in [false, true] {
        let request = CreateTaskRequest {
            id: "web".into(),
            bundle: bundle.to_str().unwrap().into(),
            terminal,
            ..Default::default()
        };
        let context = TtrpcContext::default();
        let created = timeout(Duration::from_secs(1), service.create(&context, request)).await;
        let said = message(created.expect("an answer within a second"));
        assert!(said.contains("run_if_monitor"), "{said}");
    }
}
