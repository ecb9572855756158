//! Processes that are added to a container, by containerd's API and by `ctr`.

use std::thread;

use reaper_tests::{
    Node,
    api::{Code, Streams},
    containerd::is_yardstick,
    faults::{monitor_of, process_named, shim_of},
    on_each,
    procfs::Process,
    runtime::until,
    spec::Workload,
};
use serde_json::json;

/// A container that stays, and its init process.
fn resting(node: &Node) -> (String, Process) {
    let id = node.run(
        "rests",
        &Workload::new(&["/bin/sleep", "1071"]),
        &Streams::default(),
    );
    let init = process_named("/bin/sleep 1071");
    (id, init)
}

/// Runs an exec to its end and deletes it.
fn run_exec(node: &Node, id: &str, exec: &str, workload: &Workload, streams: &Streams) -> u32 {
    let api = node.api();
    api.exec(id, exec, workload, streams)
        .unwrap_or_else(|status| panic!("exec {exec}: {status}"));
    let waiting = api.wait(id, exec);
    api.start(id, exec)
        .unwrap_or_else(|status| panic!("start {exec}: {status}"));
    let exit = waiting.finish().expect("wait");
    assert_eq!(api.delete_exec(id, exec).expect("delete").code, exit.code);
    exit.code
}

#[test]
fn ctr_exec_gives_output_and_code() {
    on_each(|node| {
        let (id, _) = resting(node);
        let mut command = node.ctr_command();
        command.args(["task", "exec", "--exec-id", "one", "--fifo-dir"]);
        command
            .arg(node.dir().join("fifo"))
            .args([&id, "/bin/sh", "-c"]);
        command.arg("echo out; echo err >&2; exit 41");
        let output = reaper_tests::ctr::Output::of(&mut command);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (41, "out\n"),
            "{output:?}"
        );
        assert_eq!(output.stderr, "err\n");
        node.destroy(&id);
    });
}

/// A client may send a process that says nothing of what confines its container.
#[test]
fn an_exec_has_of_its_container_what_its_request_leaves_out() {
    on_each(|node| {
        let only = json!(["CAP_KILL"]);
        let workload = Workload::new(&["/bin/sleep", "1072"])
            .with(
                "capabilities",
                json!({ "bounding": only, "effective": only, "permitted": only }),
            )
            .with(
                "rlimits",
                json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }]),
            );
        let id = node.run("confined", &workload, &Streams::default());
        let out = node.fifo("out");
        let reading = out.read();
        let show = Workload::shell("grep ^CapEff /proc/self/status; ulimit -n");
        let code = run_exec(node, &id, "show", &show, &Streams::default().stdout(&out));
        assert_eq!(code, 0);
        assert_eq!(reading.text(), "CapEff:\t0000000000000020\n77\n");
        node.destroy(&id);
    });
}

#[test]
fn hundred_concurrent_execs_return_own_code_and_output() {
    on_each(|node| {
        let (id, _) = resting(node);
        thread::scope(|scope| {
            for number in 0..100 {
                let id = &id;
                scope.spawn(move || {
                    let out = node.fifo(&format!("out{number}"));
                    let err = node.fifo(&format!("err{number}"));
                    let (reading, errors) = (out.read(), err.read());
                    let workload = Workload::shell(&format!("echo number {number}; exit {number}"));
                    let streams = Streams::default().stdout(&out).stderr(&err);
                    let code = run_exec(node, id, &format!("e{number}"), &workload, &streams);
                    assert_eq!(
                        (code, reading.text()),
                        (number, format!("number {number}\n"))
                    );
                    assert_eq!(errors.text(), "");
                });
            }
        });
        node.destroy(&id);
    });
}

#[test]
fn invalid_exec_is_refused_with_reason() {
    on_each(|node| {
        let api = node.api();
        let workload = Workload::new(&["/bin/sleep", "1072"]);
        let created = node.create("created", &workload, &Streams::default());
        let refusal = api.exec(&created, "early", &workload, &Streams::default());
        let refusal = refusal.and_then(|()| api.start(&created, "early").map(drop));
        let refusal = refusal.expect_err("an exec on a created container");
        assert!(
            is_yardstick() || refusal.message().contains("created"),
            "{refusal:?}"
        );
        let _ = api.delete_exec(&created, "early");
        node.destroy(&created);

        let (id, _) = resting(node);
        api.exec(&id, "twice", &workload, &Streams::default())
            .expect("exec");
        let refusal = api.exec(&id, "twice", &workload, &Streams::default());
        assert_eq!(
            refusal.expect_err("an id in use").code(),
            Code::AlreadyExists
        );
        api.kill(&id, "twice", 9).expect("kill it at its gate");
        api.wait(&id, "twice").finish().expect("wait");
        api.delete_exec(&id, "twice").expect("delete");

        let absent = Workload::new(&["/no/such/program"]);
        let refusal = api.exec(&id, "absent", &absent, &Streams::default());
        let refusal = refusal.and_then(|()| api.start(&id, "absent").map(drop));
        let refusal = refusal.expect_err("a program that does not exist");
        assert!(
            refusal.message().contains("/no/such/program"),
            "{refusal:?}"
        );
        api.delete_exec(&id, "absent")
            .expect("delete what never ran");

        let waiting = api.wait(&id, "");
        api.kill(&id, "", 9).expect("kill");
        waiting.finish().expect("wait");
        let refusal = api.exec(&id, "late", &workload, &Streams::default());
        let refusal = refusal.expect_err("an exec on a stopped container");
        assert!(
            is_yardstick() || refusal.message().contains("stopped"),
            "{refusal:?}"
        );
        node.delete(&id);
    });
}

#[test]
fn killing_one_exec_spares_init_and_processes_of_other_execs() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let (id, init) = resting(node);
        let api = node.api();
        let leaver = Workload::shell("setsid sleep 1073 & exit 0");
        assert_eq!(
            run_exec(node, &id, "leaver", &leaver, &Streams::default()),
            0
        );
        let left = process_named("sleep 1073");

        let victim = Workload::shell("setsid sleep 1074 & exec sleep 1075");
        api.exec(&id, "victim", &victim, &Streams::default())
            .expect("exec");
        let waiting = api.wait(&id, "victim");
        api.start(&id, "victim").expect("start");
        process_named("sleep 1074");
        process_named("sleep 1075");
        api.kill(&id, "victim", 9).expect("kill");
        assert_eq!(waiting.finish().expect("wait").code, 137);
        api.delete_exec(&id, "victim").expect("delete");
        assert!(
            left.is_alive() && init.is_alive(),
            "only the killed one has ended"
        );

        node.destroy(&id);
        assert!(!left.is_alive(), "it ends with init");
    });
}

#[test]
fn exec_exits_are_published_before_exit_of_init() {
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let events = node.events();
        let (id, _) = resting(node);
        let api = node.api();
        for number in 0..5 {
            let exec = format!("e{number}");
            let workload = Workload::new(&["/bin/sleep", "1076"]);
            api.exec(&id, &exec, &workload, &Streams::default())
                .expect("exec");
            api.start(&id, &exec).expect("start");
        }
        node.destroy(&id);
        events.topics_of(&id);
        let exits: Vec<String> = events
            .of(&id)
            .into_iter()
            .filter(|event| event.topic == "/tasks/exit")
            .map(|event| event.id)
            .collect();
        assert_eq!(exits.len(), 6, "{exits:?}");
        assert_eq!(exits.last(), Some(&id));
    });
}

#[test]
fn thousands_of_sequential_execs_leave_shim_and_monitor_unchanged() {
    const ROUNDS: u32 = 5000;
    on_each(|node| {
        if is_yardstick() {
            return;
        }
        let (id, init) = resting(node);
        let (monitor, shim) = (monitor_of(init.pid), shim_of(init.pid));
        let workload = Workload::new(&["/bin/true"]);
        let round = |number: u32| {
            let exec = format!("e{number}");
            assert_eq!(
                run_exec(node, &id, &exec, &workload, &Streams::default()),
                0
            );
        };
        // Buffers and caches have their size after some rounds. Helper threads of the shim end when
        // they have been idle for a while, so there may be fewer later.
        (0..100).for_each(round);
        let before = [monitor.figures(), shim.figures()];
        (100..100 + ROUNDS).for_each(round);
        until("they hold what they held before", || {
            let now = [monitor.figures(), shim.figures()];
            now.iter()
                .zip(&before)
                .all(|(now, before)| {
                    now.descriptors == before.descriptors
                        && now.threads <= before.threads
                        && now.anonymous_kib <= before.anonymous_kib + 128
                })
                .then_some(())
        });
        node.destroy(&id);
    });
}
