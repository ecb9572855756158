//! The engine over a scripted executor: races that real processes seldom run.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use reaper_exec::{
    ContainerConfig, Engine, Error, Executor as _, FakeCall, FakeExecutor, Signal, Target,
    conformance::{self, Program, Subject},
    engine,
};
use reaper_spec::{ContainerId, Exit, ExitStatus, ProcessIdentity, ProcessSpec, Status};
use reaper_state::{MemoryStore, Record, StateRoot, StateStore as _};
use tempfile::TempDir;
use tokio::task::JoinHandle;

struct Rig {
    engine: Arc<Engine<FakeExecutor, MemoryStore>>,
    fake: FakeExecutor,
    id: ContainerId,
    root: TempDir,
}

impl Rig {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let fake = FakeExecutor::new();
        let dir = StateRoot::new(root.path());
        let engine = Engine::new(fake.clone(), Arc::new(MemoryStore::new()), dir);
        Self {
            engine: Arc::new(engine),
            fake,
            id: ContainerId::new("web-1").unwrap(),
            root,
        }
    }

    fn container(&self) -> ContainerConfig {
        let process = ProcessSpec::new(["last"], "/").unwrap();
        ContainerConfig::new(self.id.clone(), process)
    }

    fn target(&self) -> Target {
        Target::Init(self.id.clone())
    }

    /// A creation that goes on beside the test, as far as it comes.
    async fn creating(&self) -> JoinHandle<engine::Result<(Record, Vec<String>)>> {
        let (engine, new) = (Arc::clone(&self.engine), self.container());
        let creating = tokio::spawn(async move { engine.create(new).await });
        settle().await;
        creating
    }

    /// The same of a deletion by force.
    async fn deleting(&self) -> JoinHandle<engine::Result<Option<Exit>>> {
        let (engine, id) = (Arc::clone(&self.engine), self.id.clone());
        let deleting = tokio::spawn(async move { engine.delete(&id, true).await });
        settle().await;
        deleting
    }
}

/// Why an executor did not do something.
fn setup(step: &str, message: &str) -> Error {
    Error::Setup {
        step: step.to_owned(),
        message: message.to_owned(),
        errno: None,
    }
}

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    conformance::run(|| {
        let root = tempfile::tempdir().unwrap();
        let fake = FakeExecutor::new();
        Subject::new(fake.clone(), root.path())
            .running(|program| match program {
                Program::Ends(code) => vec!["exit".to_owned(), code.to_string()],
                Program::Lasts => vec!["last".to_owned()],
                Program::Missing => vec!["missing".to_owned()],
                Program::IgnoresTerm => vec!["ignore".to_owned(), "15".to_owned()],
                Program::EndsByTerm(code) => {
                    vec!["handle".to_owned(), "15".to_owned(), code.to_string()]
                }
            })
            .without_processes()
            .reopening(move || fake.clone())
            .keeping(root)
    })
    .await;
}

#[tokio::test]
async fn forced_delete_ends_a_creation_whose_creator_was_killed() {
    let rig = Rig::new();
    // The program that asked for it has ended, its monitor has recorded nothing yet.
    let mut record = Record::new(rig.id.clone(), "/bundle".into());
    record.monitor = Some(ProcessIdentity {
        pid: 1,
        start_time: u64::MAX,
        boot_id: "none".to_owned(),
    });
    for force in [false, true] {
        rig.engine.store().create(&record).unwrap();
        let still_creating = Error::Status {
            operation: "delete".to_owned(),
            target: rig.target(),
            status: Status::Creating,
        };
        rig.fake.fail_next(FakeCall::Delete, still_creating);
        let kills = rig.fake.calls(FakeCall::Kill);
        let deleted = rig.engine.delete(&rig.id, force).await;
        assert_eq!(deleted.is_ok(), force, "{deleted:?}");
        assert_eq!(rig.fake.calls(FakeCall::Kill) - kills, usize::from(force));
        if !force {
            rig.engine.delete(&rig.id, false).await.unwrap();
        }
        assert_eq!(rig.engine.list().await.unwrap(), []);
    }
}

/// What a watch answers that would wait for ever if it had not ended.
async fn next_of_ended(
    events: &mut engine::EventStream<'_, FakeExecutor, MemoryStore>,
) -> engine::Error {
    let next = tokio::time::timeout(Duration::from_secs(60), events.next());
    next.await.expect("an answer").expect_err("an error")
}

#[tokio::test]
async fn a_watch_ends_with_an_error_when_the_state_root_is_removed_or_moved() {
    for moved in [false, true] {
        let rig = Rig::new();
        let mut events = rig.engine.watch().await.unwrap();
        let root = rig.root.path();
        if moved {
            std::fs::rename(root, root.with_extension("moved")).unwrap();
        } else {
            std::fs::remove_dir(root).unwrap();
        }
        for _ in 0..2 {
            let error = next_of_ended(&mut events).await;
            assert!(
                error.to_string().contains(root.to_str().unwrap()),
                "{error}"
            );
        }
        let _ = std::fs::remove_dir(root.with_extension("moved"));
    }
}

#[tokio::test]
async fn reading_state_during_create_does_not_disturb_it() {
    let rig = Rig::new();
    // It is made, and its maker has not been told.
    rig.fake.hold(FakeCall::Create);
    let creating = rig.creating().await;
    assert_eq!(
        rig.engine.state(&rig.id).await.unwrap().status,
        Status::Creating
    );
    rig.fake.release(FakeCall::Create);
    let seen = loop {
        let record = rig.engine.state(&rig.id).await.unwrap();
        if record.status == Status::Created {
            break record;
        }
        tokio::task::yield_now().await;
    };
    let (record, _) = creating.await.unwrap().unwrap();
    assert_eq!(
        (record.status, record.process),
        (Status::Created, seen.process)
    );
    assert!(rig.fake.exists(&rig.target()));
}

#[tokio::test]
async fn a_creation_that_fails_leaves_no_record() {
    let rig = Rig::new();
    rig.fake.fail_next(FakeCall::Create, setup("mount", "no"));
    let failed = rig.engine.create(rig.container()).await.unwrap_err();
    assert_eq!(failed.to_string(), "mount: no");
    assert!(rig.engine.list().await.unwrap().is_empty());
    rig.engine.create(rig.container()).await.unwrap();
}

#[tokio::test]
async fn a_creation_that_ends_because_it_was_deleted_says_so_and_spares_its_successor() {
    let rig = Rig::new();
    rig.fake
        .fail_next(FakeCall::Create, setup("the monitor", "has ended"));
    rig.fake.hold(FakeCall::Create);
    let creating = rig.creating().await;
    // As `delete --force` and another `create` do.
    let store = rig.engine.store();
    store.delete(&rig.id).unwrap();
    let successor = Record::new(rig.id.clone(), "/successor".into());
    store.create(&successor).unwrap();
    rig.fake.release(FakeCall::Create);
    let failed = creating.await.unwrap().unwrap_err();
    assert_eq!(
        failed.to_string(),
        "container web-1 was deleted while it was being created"
    );
    assert_eq!(store.get(&rig.id).unwrap().record, successor);
    let reason = std::error::Error::source(&failed).map(ToString::to_string);
    assert_eq!(reason.as_deref(), Some("the monitor: has ended"));
}

#[tokio::test]
async fn a_creation_leaves_its_record_to_the_deletion_that_has_begun() {
    let rig = Rig::new();
    rig.fake
        .fail_next(FakeCall::Create, setup("the monitor", "has ended"));
    rig.fake.hold(FakeCall::Create);
    rig.fake.hold(FakeCall::Kill);
    let creating = rig.creating().await;
    let deleting = rig.deleting().await;
    rig.fake.release(FakeCall::Create);
    let failed = creating.await.unwrap().unwrap_err();
    assert!(matches!(failed, engine::Error::DeletedMeanwhile { .. }));
    assert_eq!(
        rig.engine.list().await.unwrap(),
        std::slice::from_ref(&rig.id)
    );
    rig.fake.release(FakeCall::Kill);
    deleting.await.unwrap().unwrap();
    assert_eq!(rig.engine.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_bundle_does_not_say_what_the_engine_says() {
    let rig = Rig::new();
    let setup = setup("mount", "no");
    let deleted = || {
        let mut new = rig.container();
        new.annotations = ["reaper.engine/deletion", "mine"]
            .map(|key| (key.to_owned(), String::new()))
            .into();
        new
    };
    rig.fake.fail_next(FakeCall::Create, setup);
    let failed = rig.engine.create(deleted()).await.unwrap_err();
    assert_eq!(failed.to_string(), "mount: no");
    let (record, _) = rig.engine.create(deleted()).await.unwrap();
    let names: Vec<_> = record.annotations.keys().collect();
    assert_eq!(names, ["mine", engine::SCOPE_ANNOTATION]);
}

#[tokio::test]
async fn a_deletion_is_noted_for_as_long_as_neither_it_nor_the_creation_has_ended() {
    for fails in [true, false] {
        let rig = Rig::new();
        let noted = || {
            let record = rig.engine.store().get(&rig.id).unwrap().record;
            record.annotations.contains_key("reaper.engine/deletion")
        };
        rig.fake.hold(FakeCall::Create);
        rig.fake.hold(FakeCall::Delete);
        let creating = rig.creating().await;
        if fails {
            let (target, monitor) = (rig.target(), 1);
            let error = Error::Unresponsive { target, monitor };
            rig.fake.fail_next(FakeCall::Delete, error);
        }
        let deleting = rig.deleting().await;
        assert!(noted());
        if fails {
            rig.fake.release(FakeCall::Delete);
            deleting.await.unwrap().unwrap_err();
            assert!(!noted());
            rig.fake.release(FakeCall::Create);
            creating.await.unwrap().unwrap();
        } else {
            rig.fake.release(FakeCall::Create);
            creating.await.unwrap().unwrap();
            assert!(!noted());
            rig.fake.release(FakeCall::Delete);
            // Whether it deletes what was created by then is the executor's.
            let _ = deleting.await.unwrap();
        }
    }
}

#[tokio::test]
async fn late_exit_is_not_recorded_for_next_container_of_same_id() {
    let rig = Rig::new();
    rig.engine.create(rig.container()).await.unwrap();
    rig.engine.start(&rig.id).await.unwrap();
    rig.fake.hold(FakeCall::Wait);
    let waiting = tokio::spawn({
        let (engine, id) = (Arc::clone(&rig.engine), rig.id.clone());
        async move { engine.wait(&id).await }
    });
    settle().await;
    rig.fake.exit(&rig.target(), 3);
    settle().await;
    assert_eq!(rig.fake.calls(FakeCall::Wait), 1, "it knows the end");
    rig.engine.delete(&rig.id, false).await.unwrap();
    rig.engine.create(rig.container()).await.unwrap();
    rig.fake.release(FakeCall::Wait);
    let exit = waiting.await.unwrap().unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 3 });
    let record = rig.engine.state(&rig.id).await.unwrap();
    assert_eq!((record.status, record.exit), (Status::Created, None));
}

#[tokio::test]
async fn an_exit_before_start_has_returned_is_kept() {
    let rig = Rig::new();
    rig.engine.create(rig.container()).await.unwrap();
    rig.fake.exit(&rig.target(), 19);
    let refused = rig.engine.start(&rig.id).await.unwrap_err();
    assert!(
        matches!(refused, engine::Error::Transition { .. }),
        "{refused}"
    );
    let record = rig.engine.state(&rig.id).await.unwrap();
    assert_eq!(record.exit.unwrap().status, ExitStatus::Exited { code: 19 });
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Start,
    Pause,
    Resume,
    Exit,
    Kill,
    Look,
    Delete(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Create),
        Just(Step::Start),
        Just(Step::Pause),
        Just(Step::Resume),
        Just(Step::Exit),
        Just(Step::Kill),
        Just(Step::Look),
        any::<bool>().prop_map(Step::Delete),
    ];
    proptest::collection::vec(step, 1..40)
}

/// The status that follows, or `None` where the step is refused.
fn model(status: Option<Status>, step: Step) -> Option<Option<Status>> {
    use Status::{Created, Paused, Running, Stopped};
    match (status, step) {
        (None, Step::Create) => Some(Some(Created)),
        (Some(Created), Step::Start) => Some(Some(Running)),
        (Some(Running), Step::Pause) => Some(Some(Paused)),
        (Some(Paused), Step::Resume) => Some(Some(Running)),
        (Some(Created | Running | Paused), Step::Exit | Step::Kill) => Some(Some(Stopped)),
        (status, Step::Exit) => Some(status),
        (Some(status), Step::Look) => Some(Some(status)),
        (Some(Stopped), Step::Delete(_)) | (Some(_), Step::Delete(true)) => Some(None),
        _ => None,
    }
}

proptest! {
    #[test]
    fn any_order_of_calls_follows_the_transition_table(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            let mut status = None;
            for step in steps {
                let done = match step {
                    Step::Create => rig.engine.create(rig.container()).await.map(drop),
                    Step::Start => rig.engine.start(&rig.id).await.map(drop),
                    Step::Pause => rig.engine.pause(&rig.id).await.map(drop),
                    Step::Resume => rig.engine.resume(&rig.id).await.map(drop),
                    Step::Kill => rig.engine.kill(&rig.id, Signal::KILL, false).await,
                    Step::Look => rig.engine.state(&rig.id).await.map(drop),
                    Step::Delete(force) => rig.engine.delete(&rig.id, force).await.map(drop),
                    Step::Exit => {
                        rig.fake.exit(&rig.target(), 3);
                        Ok(())
                    }
                };
                let expected = model(status, step);
                assert_eq!(done.is_ok(), expected.is_some(), "{step:?} when {status:?}: {done:?}");
                status = expected.unwrap_or(status);
                let seen = rig.engine.state(&rig.id).await.ok().map(|record| record.status);
                assert_eq!(seen, status, "after {step:?}");
                let observed = rig.fake.state(&rig.id).await.ok().map(|seen| seen.status);
                assert_eq!(observed, status, "after {step:?}");
            }
        });
    }
}

/// A limit as a configuration has it.
fn limit(most: usize) -> Vec<reaper_spec::ContainerLimit> {
    let mut config = reaper_spec::Config::default();
    let rule = format!("[policy]\ncontainers = {most}\n");
    config.apply_options(&rule).unwrap();
    config.policy.container_limits()
}

#[test]
fn no_more_containers_than_the_limit_are_created_at_the_same_time() {
    let rig = Rig::new();
    let created = std::thread::scope(|threads| {
        let create = |number: usize| {
            let mut new = rig.container();
            new.id = ContainerId::new(format!("c{number}")).unwrap();
            let engine = &rig.engine;
            threads.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let limits = limit(7);
                let created = engine.create_within(new, &limits);
                runtime.unwrap().block_on(created).map(drop)
            })
        };
        let threads: Vec<_> = (0..40).map(create).collect();
        let created = threads.into_iter().map(|thread| thread.join().unwrap());
        created.collect::<Vec<_>>()
    });
    let refused: Vec<_> = created.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 33);
    for error in refused {
        let expected = "policy.containers (the runtime's options in containerd's configuration, line 2) does not \
                        allow another container: 7 have not stopped";
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(rig.engine.store().list().unwrap().len(), 7);
    assert_eq!(rig.fake.calls(FakeCall::Create), 7);
}

#[tokio::test]
async fn what_has_ended_and_a_pods_sandbox_do_not_count_and_what_cannot_be_created_leaves_room() {
    let rig = Rig::new();
    let create = async |id: &str| {
        let mut new = rig.container();
        new.id = ContainerId::new(id).unwrap();
        rig.engine.create_within(new, &limit(1)).await
    };
    let mut sandbox = Record::new(ContainerId::new("pod").unwrap(), "/bundle".into());
    let kind = "io.kubernetes.cri.container-type".to_owned();
    sandbox.annotations = [(kind, "sandbox".to_owned())].into();
    rig.engine.store().create(&sandbox).unwrap();
    let error = Error::NotFound(rig.target());
    rig.fake.fail_next(FakeCall::Create, error);
    create("a").await.unwrap_err();
    create("a").await.unwrap();
    create("b").await.unwrap_err();
    let id = ContainerId::new("a").unwrap();
    rig.engine.start(&id).await.unwrap();
    create("b").await.unwrap_err();
    // No program has waited for its end, so that its record says nothing of it.
    rig.fake.exit(&Target::Init(id), 0);
    create("b").await.unwrap();
    let none = limit(0);
    let refused = rig.engine.create_within(rig.container(), &none).await;
    assert!(matches!(refused, Err(engine::Error::Policy(_))));
}

#[tokio::test]
async fn a_bundle_that_calls_its_container_a_sandbox_does_not_keep_it_from_being_counted() {
    let rig = Rig::new();
    let create = async |id: &str, is_sandbox: bool| {
        let mut new = rig.container();
        new.id = ContainerId::new(id).unwrap();
        let kind = "io.kubernetes.cri.container-type".to_owned();
        new.annotations = [(kind, "sandbox".to_owned())].into();
        new.is_sandbox = is_sandbox;
        rig.engine.create_within(new, &limit(1)).await
    };
    create("pod", true).await.unwrap();
    create("a", false).await.unwrap();
    let refused = create("b", false).await;
    assert!(
        matches!(refused, Err(engine::Error::Policy(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_id_that_is_taken_is_named_as_such_at_the_limit_too() {
    let rig = Rig::new();
    let limits = limit(1);
    rig.engine
        .create_within(rig.container(), &limits)
        .await
        .unwrap();
    let taken = rig.engine.create_within(rig.container(), &limits).await;
    let exists = matches!(
        taken,
        Err(engine::Error::Store(
            reaper_state::Error::AlreadyExists { .. }
        ))
    );
    assert!(exists, "{taken:?}");
}
