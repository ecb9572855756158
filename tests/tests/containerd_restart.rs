//! containerd goes away and comes back.

use std::{fs, io::Write};

use reaper_tests::{
    Node, api::Streams, containerd::is_yardstick, cri::container, on_each, procfs::Process,
    runtime::until, spec::Workload,
};

/// Runs what a restart of containerd must not disturb, for each way to stop it.
fn restarting(test: impl Fn(&Node, &dyn Fn())) {
    on_each(|node| {
        test(node, &|| node.stop_containerd());
        test(node, &|| node.kill_containerd());
    });
}

#[test]
fn running_container_survives_containerd_restart() {
    restarting(|node, stop| {
        let id = node.run(
            "lasting",
            &Workload::new(&["/bin/sleep", "1021"]),
            &Streams::default(),
        );
        let pid = node.api().state(&id, "").expect("state").pid;
        let before = Process::find(pid).expect("its process");
        stop();
        assert!(before.is_alive(), "it runs without containerd");
        node.start_containerd();
        assert!(before.is_alive(), "it runs with containerd again");
        let state = node.api().state(&id, "").expect("state after the restart");
        assert_eq!((state.status().as_str_name(), state.pid), ("RUNNING", pid));
        let waiting = node.api().wait(&id, "");
        node.api()
            .kill(&id, "", 15)
            .expect("kill after the restart");
        assert_eq!(waiting.finish().expect("wait").code, 143);
        assert_eq!(node.delete(&id).code, 143);
    });
}

#[test]
fn exit_during_containerd_restart_is_reported_with_output() {
    restarting(|node, stop| {
        let round = fs::read_dir(node.work())
            .expect("list the work folder")
            .count();
        let (out, go) = (
            node.fifo(&format!("out{round}")),
            node.fifo(&format!("go{round}")),
        );
        let reading = out.read();
        let script = format!(
            "read -r word <{}; echo meanwhile; exit 12",
            go.as_ref().display()
        );
        let id = node.run(
            "meanwhile",
            &Workload::shell(&script),
            &Streams::default().stdout(&out),
        );
        let pid = node.api().state(&id, "").expect("state").pid;
        let process = Process::find(pid).expect("its process");
        stop();
        let mut gate = until("it waits to go on", || go.open_writer().ok());
        gate.write_all(b"go\n").expect("let it go on");
        until("it ends", || (!process.is_alive()).then_some(()));
        node.start_containerd();
        let exit = node
            .api()
            .wait(&id, "")
            .finish()
            .expect("wait after the restart");
        assert_eq!(exit.code, 12);
        assert_eq!(node.delete(&id).code, 12);
        assert_eq!(reading.text(), "meanwhile\n");
    });
}

#[test]
fn pods_keep_running_logging_and_their_exit_codes() {
    restarting(|node, stop| {
        let round = fs::read_dir(node.work())
            .expect("list the work folder")
            .count();
        let (one, two) = (
            node.fifo(&format!("one{round}")),
            node.fifo(&format!("two{round}")),
        );
        let script = format!(
            "echo first; read -r word <{}; echo second; read -r word <{}; echo third; exit 17",
            one.as_ref().display(),
            two.as_ref().display(),
        );
        let pod = node.run_pod(&format!("pod{round}"));
        let away = format!(
            "read -r word <{}; echo away; exit 18",
            one.as_ref().display()
        );
        let steady = pod.start(&container("steady", &["/bin/sh", "-c", &script]));
        until("it logs", || {
            (pod.log("steady") == ["stdout F first"]).then_some(())
        });
        stop();
        let mut gate = until("it waits to go on", || one.open_writer().ok());
        gate.write_all(b"go\n").expect("let it go on");
        drop(gate);
        let mut gate = until("it has gone on", || two.open_writer().ok());
        node.start_containerd();
        let pod = pod.on(node);
        if !is_yardstick() {
            until("what it said meanwhile is logged", || {
                (pod.log("steady") == ["stdout F first", "stdout F second"]).then_some(())
            });
        }
        gate.write_all(b"go\n").expect("let it go on");
        assert_eq!(node.cri().exited(&steady).exit_code, 17);
        until("its last words are logged", || {
            pod.log("steady")
                .last()
                .is_some_and(|line| line == "stdout F third")
                .then_some(())
        });

        let absent = pod.start(&container("absent", &["/bin/sh", "-c", &away]));
        let mut gate = until("it waits to go on", || one.open_writer().ok());
        stop();
        gate.write_all(b"go\n").expect("let it go on");
        drop(gate);
        until("it has ended", || one.open_writer().is_err().then_some(()));
        node.start_containerd();
        let pod = pod.on(node);
        assert_eq!(node.cri().exited(&absent).exit_code, 18);
        if !is_yardstick() {
            // A containerd that finds a container ended deletes its task at once, and with bad luck
            // closes the FIFO before it has read it. It says so.
            let given_up = ["Failed to pipe stdout", absent.as_str(), "closed fifo"];
            until("its last words are logged", || {
                let logged = pod.log("absent") == ["stdout F away"];
                (logged || node.has_logged(&given_up)).then_some(())
            });
        }
        pod.stop();
        pod.remove();
    });
}
