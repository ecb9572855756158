//! Containers while they live.

use std::fs;

use reaper_exec::{Error, Executor, Signal, Target, engine, io::StdioRequest};
use reaper_overlay::RootfsMount;
use reaper_spec::{ExitStatus, Status};

use crate::{
    bundle,
    output::capture,
    rig::{Rig, cases, exec_request},
};

cases! {
    a_container_has_its_own_namespaces_root_and_streams,
    an_images_mounts_are_made_and_unmade,
    pid_of_started_exec_is_listed_with_its_exec_id,
    exec_applies_capabilities_from_process_json,
    a_paused_container_is_frozen_until_it_is_resumed,
    stats_count_processes_threads_and_memory,
    create_error_carries_message_of_the_runtime,
    missing_runtime_program_is_named,
}

async fn a_container_has_its_own_namespaces_root_and_streams(rig: &Rig) {
    let (stdio, output) = capture();
    let script = "echo pid $$; ls /; cat /proc/sys/kernel/hostname; echo err >&2; exit 7";
    let new = rig.container("web", rig.shell(script), stdio, |spec| {
        spec["hostname"] = "inside".into();
    });
    let id = new.id.clone();
    let (record, _) = rig.engine.create(new).await.unwrap();
    let init = record.process.unwrap();
    let own = fs::read_link("/proc/self/ns/pid").unwrap();
    let its = fs::read_link(format!("/proc/{}/ns/pid", init.pid)).unwrap();
    assert_ne!(own, its);
    rig.engine.start(&id).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 7 });
    assert_eq!(output.all(), "pid 1\nbin\ndev\nproc\ntmp\ninside\nerr\n");
    assert_eq!(rig.engine.delete(&id, false).await.unwrap(), Some(exit));
}

async fn an_images_mounts_are_made_and_unmade(rig: &Rig) {
    let (stdio, output) = capture();
    let mut new = rig.container("web", rig.process(&["ls", "/"]), stdio, |_| {});
    let image = rig.path("image");
    bundle::image(&image);
    fs::write(image.join("only-here"), "").unwrap();
    let rootfs = new.bundle.join("rootfs");
    fs::remove_dir_all(&rootfs).unwrap();
    fs::create_dir(&rootfs).unwrap();
    new.view.rootfs = Some(rootfs.clone());
    new.view.rootfs_mounts = vec![RootfsMount {
        typ: "bind".to_owned(),
        source: image.display().to_string(),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
    }];
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    assert!(rootfs.join("only-here").exists());
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    assert_eq!(output.all(), "bin\ndev\nonly-here\nproc\ntmp\n");
    rig.engine.delete(&id, false).await.unwrap();
    assert!(!rootfs.join("only-here").exists());
}

async fn pid_of_started_exec_is_listed_with_its_exec_id(rig: &Rig) {
    let (id, _output) = rig.start("web", "sleep 1000").await;
    let executor = rig.engine.executor();
    let (exec, mut output) = rig.exec(&id, "one", "echo here; sleep 1000").await;
    let process = executor.start(&exec).await.unwrap();
    assert_eq!(output.line(), "here");
    let listed = executor.pids(&id).await.unwrap();
    let found = listed.iter().find(|entry| entry.pid == process.pid);
    assert_eq!(found.unwrap().exec.as_ref(), exec.exec_id());
    executor.kill(&exec, Signal::TERM, false).await.unwrap();
    let exit = executor.wait(&exec).await.unwrap();
    assert_eq!(exit.status.code(), 128 + 15);
    executor.delete(&exec).await.unwrap();
    rig.engine.delete(&id, true).await.unwrap();
}

async fn exec_applies_capabilities_from_process_json(rig: &Rig) {
    let (id, _output) = rig.start("web", "sleep 1000").await;
    let (stdio, output) = capture();
    let mut request = exec_request(rig.shell("cat /proc/self/status"), stdio);
    let bounding = r#"["CAP_CHOWN"]"#;
    request.process_json = Some(format!(
        r#"{{"args":["x"],"cwd":"/","capabilities":{{
            "bounding":{bounding},"effective":{bounding},"permitted":{bounding}}}}}"#
    ));
    let exec = "one".parse().unwrap();
    let executor = rig.engine.executor();
    executor.exec(&id, &exec, request).await.unwrap();
    let target = Target::Exec(id.clone(), exec);
    executor.start(&target).await.unwrap();
    executor.wait(&target).await.unwrap();
    let status = output.all();
    assert!(status.contains("CapBnd:\t0000000000000001"), "{status}");
    rig.engine.delete(&id, true).await.unwrap();
}

async fn a_paused_container_is_frozen_until_it_is_resumed(rig: &Rig) {
    let (id, _output) = rig.start("web", "sleep 1000").await;
    rig.engine.pause(&id).await.unwrap();
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Paused);
    let again = rig.engine.executor().pause(&id).await;
    assert!(matches!(again, Err(Error::Status { .. })), "{again:?}");
    let refused = rig
        .engine
        .executor()
        .exec(
            &id,
            &"one".parse().unwrap(),
            exec_request(rig.shell("true"), StdioRequest::default()),
        )
        .await;
    assert!(matches!(refused, Err(Error::Status { .. })), "{refused:?}");
    rig.engine.resume(&id).await.unwrap();
    assert_eq!(rig.engine.state(&id).await.unwrap().status, Status::Running);
    rig.engine.pause(&id).await.unwrap();
    // A frozen one can be ended.
    rig.engine.delete(&id, true).await.unwrap();
}

async fn stats_count_processes_threads_and_memory(rig: &Rig) {
    let (id, mut output) = rig.start("web", "sleep 1000 & echo up; wait").await;
    assert_eq!(output.line(), "up");
    let stats = rig.engine.executor().stats(&id).await.unwrap();
    assert_eq!((stats.processes, stats.threads), (2, 2));
    assert!(stats.memory_bytes > 0);
    rig.engine.delete(&id, true).await.unwrap();
}

async fn create_error_carries_message_of_the_runtime(rig: &Rig) {
    let process = rig.process(&["true"]);
    let new = rig.container("web", process, StdioRequest::default(), |spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(serde_json::json!({
            "destination": "/data", "type": "bind", "source": "/nowhere/data",
            "options": ["bind"],
        }));
    });
    let Err(engine::Error::Executor(Error::Setup { step, message, .. })) =
        rig.engine.create(new).await
    else {
        panic!("it was created");
    };
    assert_eq!(step, format!("{} create", rig.runtime));
    assert!(message.contains("/nowhere/data"), "{message}");
}

async fn missing_runtime_program_is_named(rig: &Rig) {
    use reaper_exec::{Engine, HostExecutor, OciExecutor};
    let root = rig.engine.root().clone();
    let executor = OciExecutor::new(HostExecutor::new(root.clone()), "no-such-runtime");
    let engine = Engine::new(executor, rig.engine.store().clone(), root);
    let new = rig.container(
        "web",
        rig.process(&["true"]),
        StdioRequest::default(),
        |_| {},
    );
    let refused = engine.create(new).await.unwrap_err().to_string();
    assert!(refused.contains("no-such-runtime"), "{refused}");
}
