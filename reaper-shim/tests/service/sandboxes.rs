//! Pods' sandboxes, which have no process.

use containerd_shim_protos::{api::Status, ttrpc::Code};
use reaper_exec::FakeCall as Call;
use reaper_shim::Settings;
use reaper_spec::OverlayScope;
use reaper_state::StateStore;

use crate::common::{code, init, message, settle, shim, shim_with};

const SANDBOX: &str = r#""io.kubernetes.cri.container-type":"sandbox""#;
const CONTAINER: &str = r#""io.kubernetes.cri.container-type":"container""#;
const PAUSE: &str = r#"["/pause"]"#;

#[tokio::test]
async fn a_sandbox_lives_without_a_process_until_it_is_killed() {
    let shim = shim();
    let created = shim.create_as("pod", PAUSE, SANDBOX).await.unwrap();
    assert_eq!(created.pid, std::process::id());
    assert_eq!(shim.status("pod", "").await, Status::CREATED);
    shim.start("pod", "").await.unwrap();
    assert_eq!(shim.status("pod", "").await, Status::RUNNING);
    assert_eq!(
        shim.store.list().unwrap().len(),
        1,
        "who cleans up finds it"
    );
    assert_eq!(
        code(shim.delete("pod", "").await),
        Code::FAILED_PRECONDITION
    );

    let (waited, ()) = tokio::join!(shim.wait("pod", ""), async {
        settle().await;
        shim.kill("pod", "", 28)
            .await
            .expect("a window that changes kills nobody");
        assert_eq!(shim.status("pod", "").await, Status::RUNNING);
        shim.kill("pod", "", 9).await.unwrap();
    });
    assert_eq!(waited.unwrap().exit_status, 137);
    assert_eq!(code(shim.kill("pod", "", 9).await), Code::NOT_FOUND);
    shim.delete("pod", "").await.unwrap();
    assert_eq!(
        shim.events.seen(),
        ["create pod", "start pod", "exit pod 137", "delete pod 137"]
    );
    assert!(shim.store.list().unwrap().is_empty());
    assert_eq!(
        shim.fake.calls(Call::Create) + shim.fake.calls(Call::Delete),
        0
    );
}

#[tokio::test]
async fn sandbox_exits_0_on_sigterm_like_pause() {
    let shim = shim();
    shim.create_as("pod", PAUSE, SANDBOX).await.unwrap();
    shim.start("pod", "").await.unwrap();
    shim.kill("pod", "", 15).await.unwrap();
    assert_eq!(shim.wait("pod", "").await.unwrap().exit_status, 0);
}

#[tokio::test]
async fn a_sandbox_that_never_started_is_deleted() {
    let shim = shim();
    shim.create_as("pod", PAUSE, SANDBOX).await.unwrap();
    assert_eq!(shim.delete("pod", "").await.unwrap().exit_status, 137);
}

#[tokio::test]
async fn pause_program_of_ordinary_containers_is_executed() {
    let shim = shim();
    for (id, args, annotations) in [
        ("a", PAUSE, CONTAINER),
        ("b", r#"["/bin/pause", "/pause"]"#, ""),
        ("c", PAUSE, r#""io.kubernetes.cri.sandbox-id":"pod""#),
    ] {
        shim.create_as(id, args, annotations).await.unwrap();
        assert!(shim.fake.exists(&init(id)), "{id}");
    }
}

#[tokio::test]
async fn pause_without_cri_annotations_is_a_sandbox() {
    let shim = shim();
    shim.create_as("pod", PAUSE, "").await.unwrap();
    assert!(!shim.fake.exists(&init("pod")));
}

#[tokio::test]
async fn an_executor_of_real_containers_runs_the_sandbox() {
    let shim = shim_with(Settings {
        run_pause_process: true,
        ..Settings::default()
    });
    shim.create_as("pod", PAUSE, SANDBOX).await.unwrap();
    assert!(shim.fake.exists(&init("pod")));
}

#[tokio::test]
async fn pod_overlay_is_removed_with_its_sandbox() {
    let of_pod = format!(r#"{SANDBOX},"io.kubernetes.cri.sandbox-id":"pod""#);
    for (scope, forgotten) in [
        (OverlayScope::Pod, 1),
        (OverlayScope::Node, 0),
        (OverlayScope::Container, 0),
    ] {
        let mut settings = Settings::default();
        settings.config.overlay.scope = scope;
        let shim = shim_with(settings);
        shim.create_as("pod", PAUSE, &of_pod).await.unwrap();
        shim.start("pod", "").await.unwrap();
        shim.kill("pod", "", 9).await.unwrap();
        assert_eq!(shim.fake.calls(Call::RemoveView), 0);
        shim.delete("pod", "").await.unwrap();
        assert_eq!(shim.fake.calls(Call::RemoveView), forgotten);
    }
}

#[tokio::test]
async fn failed_overlay_removal_does_not_block_sandbox_delete() {
    let mut settings = Settings::default();
    settings.config.overlay.scope = OverlayScope::Pod;
    let shim = shim_with(settings);
    let of_pod = format!(r#"{SANDBOX},"io.kubernetes.cri.sandbox-id":"pod""#);
    shim.create_as("pod", PAUSE, &of_pod).await.unwrap();
    let error = reaper_exec::Error::NotFound(init("pod"));
    shim.fake.fail_next(Call::RemoveView, error);
    shim.delete("pod", "").await.unwrap();
    assert_eq!(shim.fake.calls(Call::RemoveView), 1);
    assert!(shim.store.list().unwrap().is_empty());
}

#[tokio::test]
async fn pod_of_a_namespace_that_the_policy_does_not_allow_is_refused() {
    let mut settings = Settings::default();
    let policy = "[policy]\nnamespaces = [\"tools\"]\n";
    settings.config.apply_options(policy).unwrap();
    let shim = shim_with(settings);
    let of = |name: &str| format!(r#"{SANDBOX},"io.kubernetes.cri.sandbox-namespace":"{name}""#);
    let refused = shim.create_as("other", PAUSE, &of("other")).await;
    let expected = "policy.namespaces (the runtime's options in containerd's configuration, line 2) \
                    does not allow pods of the namespace \"other\"";
    assert!(message(refused).contains(expected));
    shim.create_as("pod", PAUSE, &of("tools")).await.unwrap();
}

#[tokio::test]
async fn exec_keeps_the_policy_that_its_container_was_created_under() {
    let mut settings = Settings::default();
    settings
        .config
        .apply_options("[policy]\ncommands = [\"/usr/bin/sleep\"]\n")
        .unwrap();
    let shim = shim_with(settings);
    let refused = shim.create_as("web", r#"["/bin/true"]"#, "").await;
    assert!(message(refused).contains("does not allow \"/bin/true\""));
    shim.create_as("web", r#"["/usr/bin/sleep"]"#, "")
        .await
        .unwrap();
    shim.start("web", "").await.unwrap();
    let refused = shim.exec("web", "probe").await;
    assert!(message(refused).contains("does not allow \"/bin/true\""));
}

#[tokio::test]
async fn containers_beyond_their_number_are_refused_and_sandboxes_are_not_counted() {
    let mut settings = Settings::default();
    let policy = "[policy]\ncontainers = 1\n";
    settings.config.apply_options(policy).unwrap();
    let shim = shim_with(settings);
    shim.create_as("pod", PAUSE, SANDBOX).await.unwrap();
    shim.create_as("web", r#"["/bin/true"]"#, CONTAINER)
        .await
        .unwrap();
    let one_more = shim.create_as("more", r#"["/bin/true"]"#, CONTAINER).await;
    assert!(message(one_more).contains(
        "policy.containers (the runtime's options in containerd's configuration, line 2) does not allow another \
         container: 1 have not stopped"
    ));
    shim.create_as("other", PAUSE, SANDBOX).await.unwrap();
    shim.start("web", "").await.unwrap();
    shim.fake.exit(&init("web"), 0);
    shim.wait("web", "").await.unwrap();
    shim.create_as("more", r#"["/bin/true"]"#, CONTAINER)
        .await
        .unwrap();
}
