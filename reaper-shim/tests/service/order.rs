//! The order of events, and what can be seen when.

use containerd_shim_protos::{api::Status, ttrpc::Code};
use reaper_exec::{Error, FakeCall as Call};

use crate::common::{code, exec, init, settle, shim};

#[tokio::test]
async fn lifecycle_events_are_published_in_order() {
    let shim = shim();
    shim.run("web").await;
    shim.fake.exit(&init("web"), 3);
    assert_eq!(shim.wait("web", "").await.unwrap().exit_status, 3);
    assert_eq!(shim.delete("web", "").await.unwrap().exit_status, 3);
    assert_eq!(
        shim.events.seen(),
        ["create web", "start web", "exit web 3", "delete web 3"]
    );
}

#[tokio::test]
async fn an_exit_before_the_start_is_answered_comes_after_the_start() {
    let shim = shim();
    shim.create("web").await.unwrap();
    shim.fake.hold_answer(Call::Start);
    let (started, ()) = tokio::join!(shim.start("web", ""), async {
        settle().await;
        shim.fake.exit(&init("web"), 0);
        settle().await;
        assert_eq!(shim.events.seen(), ["create web"]);
        shim.fake.release_answer(Call::Start);
    });
    started.unwrap();
    assert_eq!(
        shim.events.until(3).await,
        ["create web", "start web", "exit web 0"]
    );
}

#[tokio::test]
async fn kill_of_exited_process_succeeds_until_exit_is_published() {
    let shim = shim();
    shim.create("web").await.unwrap();
    shim.fake.hold_answer(Call::Start);
    let (started, ()) = tokio::join!(shim.start("web", ""), async {
        settle().await;
        shim.fake.exit(&init("web"), 0);
        settle().await;
        shim.kill("web", "", 15)
            .await
            .expect("it has ended, but nobody was told");
        shim.fake.release_answer(Call::Start);
    });
    started.unwrap();
    shim.wait("web", "").await.unwrap();
    assert_eq!(code(shim.kill("web", "", 15).await), Code::NOT_FOUND);
}

#[tokio::test]
async fn a_process_reads_as_stopped_when_its_exit_is_published() {
    let shim = shim();
    shim.run("web").await;
    assert_eq!(shim.status("web", "").await, Status::RUNNING);
    shim.fake.exit(&init("web"), 7);
    shim.events.until(3).await;
    let state = shim.state("web", "").await.unwrap();
    assert_eq!(
        (state.status.unwrap(), state.exit_status),
        (Status::STOPPED, 7)
    );
    assert!(state.exited_at.is_some());
    shim.delete("web", "")
        .await
        .expect("what is stopped can be deleted at once");
}

#[tokio::test]
async fn exits_of_execs_come_before_the_exit_of_init() {
    let shim = shim();
    shim.run("web").await;
    shim.exec("web", "probe").await.unwrap();
    shim.start("web", "probe").await.unwrap();
    shim.fake.hold_for(Call::Wait, &exec("web", "probe"));
    shim.fake.exit(&exec("web", "probe"), 1);
    shim.fake.exit(&init("web"), 0);
    settle().await;
    assert_eq!(shim.events.seen().last().unwrap(), "started probe");
    shim.fake.release_for(Call::Wait, &exec("web", "probe"));
    let seen = shim.events.until(6).await;
    assert_eq!(seen[4..], ["exit probe 1", "exit web 0"]);
}

#[tokio::test(start_paused = true)]
async fn exec_without_reported_exit_delays_exit_of_init_only_briefly() {
    let shim = shim();
    shim.run("web").await;
    shim.exec("web", "probe").await.unwrap();
    shim.start("web", "probe").await.unwrap();
    shim.fake.hold_for(Call::Wait, &exec("web", "probe"));
    let before = tokio::time::Instant::now();
    shim.fake.exit(&init("web"), 0);
    assert_eq!(shim.wait("web", "").await.unwrap().exit_status, 0);
    assert!(before.elapsed().as_secs() < 10, "{:?}", before.elapsed());
}

#[tokio::test]
async fn exec_that_fails_to_start_does_not_delay_exit_of_init() {
    let shim = shim();
    shim.run("web").await;
    shim.exec("web", "probe").await.unwrap();
    let missing = Error::Execve {
        program: "/nope".into(),
        message: "No such file".into(),
        errno: 2,
    };
    shim.fake.fail_next(Call::Start, missing);
    assert_eq!(code(shim.start("web", "probe").await), Code::UNKNOWN);
    assert_eq!(shim.wait("web", "probe").await.unwrap().exit_status, 127);
    shim.fake.exit(&init("web"), 0);
    let seen = shim.events.until(5).await;
    assert_eq!(seen[2..], ["added probe", "exit probe 127", "exit web 0"]);
    shim.delete("web", "probe").await.unwrap();
}

#[tokio::test]
async fn execs_are_refused_after_exit_of_init() {
    let shim = shim();
    shim.run("web").await;
    shim.exec("web", "early").await.unwrap();
    shim.fake.exit(&init("web"), 0);
    settle().await;
    assert_eq!(
        code(shim.start("web", "early").await),
        Code::FAILED_PRECONDITION
    );
    assert_eq!(
        code(shim.exec("web", "late").await),
        Code::FAILED_PRECONDITION
    );
    assert_eq!(
        shim.fake.calls(Call::Exec),
        1,
        "the executor is not even asked"
    );
}

#[tokio::test]
async fn exec_added_during_exit_of_init_is_undone() {
    let shim = shim();
    shim.run("web").await;
    shim.fake.hold(Call::Exec);
    let (added, ()) = tokio::join!(shim.exec("web", "probe"), async {
        settle().await;
        shim.fake.exit(&init("web"), 0);
        shim.wait("web", "").await.unwrap();
        shim.fake.release(Call::Exec);
    });
    assert_eq!(code(added), Code::FAILED_PRECONDITION);
    assert!(!shim.fake.exists(&exec("web", "probe")));
    assert_eq!(
        shim.events.seen(),
        ["create web", "start web", "exit web 0"]
    );
}

#[tokio::test]
async fn early_and_late_waiters_get_the_same_exit() {
    let shim = shim();
    shim.create("web").await.unwrap();
    let early = async { tokio::join!(shim.wait("web", ""), shim.wait("web", "")) };
    let (early, ()) = tokio::join!(early, async {
        settle().await;
        shim.start("web", "").await.unwrap();
        shim.fake.exit(&init("web"), 9);
    });
    let late = shim.wait("web", "").await.unwrap();
    for end in [early.0.unwrap(), early.1.unwrap()] {
        assert_eq!((end.exit_status, &end.exited_at), (9, &late.exited_at));
    }
    assert_eq!(late.exit_status, 9);
}

#[tokio::test]
async fn failed_start_completes_pending_waits() {
    let shim = shim();
    shim.create("web").await.unwrap();
    let missing = Error::Execve {
        program: "/nope".into(),
        message: "No such file".into(),
        errno: 2,
    };
    shim.fake.fail_next(Call::Start, missing);
    let (waited, started) = tokio::join!(shim.wait("web", ""), shim.start("web", ""));
    let error = crate::common::message(started);
    assert!(
        error.contains("/nope") && error.contains("No such file"),
        "{error}"
    );
    assert_eq!(waited.unwrap().exit_status, 127);
    shim.delete("web", "").await.unwrap();
    assert_eq!(
        shim.events.seen(),
        ["create web", "exit web 127", "delete web 127"]
    );
}

#[tokio::test]
async fn kill_ends_created_container_before_start() {
    let shim = shim();
    shim.create("web").await.unwrap();
    shim.kill("web", "", 9).await.unwrap();
    assert_eq!(shim.wait("web", "").await.unwrap().exit_status, 137);
    assert_eq!(code(shim.start("web", "").await), Code::FAILED_PRECONDITION);
}

#[tokio::test]
async fn exit_is_published_even_if_it_cannot_be_committed() {
    let shim = shim();
    shim.run("web").await;
    let lost = Error::Monitor {
        target: init("web"),
        reason: "gone".into(),
    };
    shim.fake.fail_next(Call::Wait, lost);
    shim.fake.exit(&init("web"), 5);
    assert_eq!(shim.wait("web", "").await.unwrap().exit_status, 5);
}

#[tokio::test]
async fn exit_is_published_even_if_the_wait_for_it_panics() {
    let shim = shim();
    shim.fake.panic_next(Call::Wait);
    shim.run("web").await;
    shim.fake.exit(&init("web"), 5);
    assert_eq!(shim.wait("web", "").await.unwrap().exit_status, 5);
    let seen = shim.events.until(3).await;
    assert_eq!(seen, ["create web", "start web", "exit web 5"]);
}

/// Containers are not kept back by what is not known of their execs.
#[tokio::test]
async fn exit_of_an_exec_is_published_even_if_the_wait_for_it_panics() {
    let shim = shim();
    shim.run("web").await;
    shim.fake.panic_next(Call::Wait);
    shim.exec("web", "probe").await.unwrap();
    shim.start("web", "probe").await.unwrap();
    shim.fake.exit(&exec("web", "probe"), 0);
    // Its code is not known.
    assert_eq!(shim.wait("web", "probe").await.unwrap().exit_status, 137);
}
