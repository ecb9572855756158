//! What `kubectl exec`, `attach`, `logs` and `port-forward` ask of the CRI.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use reaper_tests::{
    Node,
    cri::{
        Pod, container,
        messages::{AttachRequest, ContainerConfig, ExecRequest, PortForwardRequest},
    },
    faults::process_named,
    on_each,
    runtime::until,
    websocket::{STDERR, STDIN, STDOUT, Session},
};

/// Runs a test with a pod on each node.
fn in_a_pod(test: impl Fn(&Node, &Pod)) {
    on_each(|node| {
        let pod = node.run_pod("pod");
        test(node, &pod);
        pod.stop();
        pod.remove();
    });
}

/// A container that stays.
fn resting(pod: &Pod) -> String {
    pod.start(&container("rests", &["/bin/sleep", "1051"]))
}

fn exec(id: &str, command: &[&str], tty: bool) -> ExecRequest {
    ExecRequest {
        container_id: id.to_owned(),
        cmd: command.iter().map(|&word| word.to_owned()).collect(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    }
}

fn attach(id: &str, tty: bool) -> AttachRequest {
    AttachRequest {
        container_id: id.to_owned(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
    }
}

#[test]
fn exec_probe_gets_stdout_stderr_and_exit_code() {
    in_a_pod(|node, pod| {
        let id = resting(pod);
        let script = ["/bin/sh", "-c", "echo out; echo err >&2; exit 21"];
        let answer = node
            .cri()
            .exec_sync(&id, &script, 0)
            .expect("a command that runs");
        assert_eq!(answer.exit_code, 21);
        assert_eq!(
            (answer.stdout.as_slice(), answer.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..])
        );
        let refusal = node.cri().exec_sync(&id, &["/no/such/probe"], 0);
        let refusal = refusal.expect_err("a command that does not exist");
        assert!(refusal.message().contains("/no/such/probe"), "{refusal:?}");
    });
}

#[test]
fn timed_out_probe_is_killed_alone() {
    in_a_pod(|node, pod| {
        let id = resting(pod);
        let start = Instant::now();
        node.cri()
            .exec_sync(&id, &["/bin/sleep", "1052"], 1)
            .expect_err("it takes too long");
        assert!(
            start.elapsed() < Duration::from_secs(600),
            "{:?}",
            start.elapsed()
        );
        process_named("/bin/sleep 1051");
        until("the probe has ended", || {
            let left = reaper_tests::procfs::descendants(std::process::id());
            let runs = left
                .iter()
                .any(|process| process.command_line() == "/bin/sleep 1052");
            (!runs).then_some(())
        });
        assert_eq!(
            node.cri()
                .exec_sync(&id, &["/bin/true"], 0)
                .expect("exec")
                .exit_code,
            0
        );
    });
}

#[test]
fn exec_passes_input_and_outputs_apart_and_the_code() {
    in_a_pod(|node, pod| {
        let id = resting(pod);
        let script = "read -r line; echo \"got $line\"; echo trouble >&2; exit 22";
        let url = node
            .cri()
            .exec_url(exec(&id, &["/bin/sh", "-c", script], false));
        let mut session = Session::open(&url.expect("an address"));
        session.send(STDIN, b"some input\n");
        session.finish();
        assert_eq!(session.text(STDOUT), "got some input\n");
        assert_eq!(session.text(STDERR), "trouble\n");
        assert_eq!(session.exit_code(), Some(22));
    });
}

#[test]
fn exec_with_a_terminal_is_a_shell_with_job_control_and_a_size() {
    in_a_pod(|node, pod| {
        let id = resting(pod);
        let shell = ["/bin/sh", "-c", "PS1='ready> ' exec sh -i"];
        let url = node
            .cri()
            .exec_url(exec(&id, &shell, true))
            .expect("an address");
        let mut session = Session::open(&url);
        session.expect(STDOUT, "ready> ");
        session.resize(101, 31);
        // The size takes a way of its own, and may come later than the command.
        session.send(STDIN, b"until stty size | grep '31 1''01'; do :; done\n");
        session.expect(STDOUT, "31 101");
        session.send(STDIN, b"sleep 1053\n");
        process_named("sleep 1053");
        session.send(STDIN, b"\x03");
        session.send(STDIN, b"echo after $?; exit 23\n");
        session.expect(STDOUT, "after 130");
        session.finish();
        assert_eq!(session.exit_code(), Some(23));
    });
}

#[test]
fn attach_reaches_the_input_and_outputs_and_a_detach_ends_nothing() {
    in_a_pod(|node, pod| {
        let config = ContainerConfig {
            stdin: true,
            ..container("cat", &["/bin/cat"])
        };
        let id = pod.start(&config);
        for word in ["first", "second"] {
            let url = node
                .cri()
                .attach_url(attach(&id, false))
                .expect("an address");
            let mut session = Session::open(&url);
            session.send(STDIN, format!("{word}\n").as_bytes());
            session.expect(STDOUT, &format!("{word}\n"));
        }
        until("both words are logged", || {
            (pod.log("cat") == ["stdout F first", "stdout F second"]).then_some(())
        });
        node.cri().stop(&id, 10).expect("stop it");
    });
}

#[test]
fn attach_with_a_terminal_reaches_the_shell() {
    in_a_pod(|node, pod| {
        let config = ContainerConfig {
            stdin: true,
            tty: true,
            ..container("shell", &["/bin/sh", "-c", "PS1='ready> ' exec sh -i"])
        };
        let id = pod.start(&config);
        let url = node
            .cri()
            .attach_url(attach(&id, true))
            .expect("an address");
        let mut session = Session::open(&url);
        session.send(STDIN, b"tty; exit 24\n");
        session.expect(STDOUT, "/dev/pts/");
        session.finish();
        assert_eq!(node.cri().exited(&id).exit_code, 24);
    });
}

#[test]
fn stdin_once_closes_input_after_first_attach() {
    in_a_pod(|node, pod| {
        let config = ContainerConfig {
            stdin: true,
            stdin_once: true,
            ..container("once", &["/bin/sh", "-c", "cat; echo end; exit 25"])
        };
        let id = pod.start(&config);
        let url = node
            .cri()
            .attach_url(attach(&id, false))
            .expect("an address");
        let mut session = Session::open(&url);
        session.send(STDIN, b"only\n");
        session.expect(STDOUT, "only\n");
        drop(session);
        assert_eq!(node.cri().exited(&id).exit_code, 25);
        until("all is logged", || {
            (pod.log("once") == ["stdout F only", "stdout F end"]).then_some(())
        });
    });
}

#[test]
fn a_port_of_the_workload_is_forwarded() {
    in_a_pod(|node, pod| {
        // The pod is on the node's network: what listens here listens there.
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let port = listener.local_addr().expect("an address").port();
        let request = PortForwardRequest {
            pod_sandbox_id: pod.id.clone(),
            port: vec![i32::from(port)],
        };
        let url = node.cri().port_forward_url(request).expect("an address");
        let mut session = Session::open(&format!("{url}?port={port}"));
        session.send(0, b"ping");
        let (mut peer, _) = listener.accept().expect("a connection");
        let mut word = [0; 4];
        peer.read_exact(&mut word).expect("read what was forwarded");
        assert_eq!(&word, b"ping");
        TcpStream::write_all(&mut peer, b"pong").expect("answer");
        session.expect(0, "pong");
    });
}

#[test]
fn a_log_that_is_rotated_goes_on_in_a_new_file() {
    in_a_pod(|node, pod| {
        let go = node.fifo("go");
        let script = format!(
            "echo before; read -r word <{}; echo after; exec sleep 1054",
            go.as_ref().display()
        );
        let id = pod.start(&container("rotated", &["/bin/sh", "-c", &script]));
        until("it logs", || {
            (pod.log("rotated") == ["stdout F before"]).then_some(())
        });
        let log = pod.log_path("rotated");
        fs::rename(&log, log.with_extension("1")).expect("rotate the log");
        node.cri().reopen_log(&id).expect("reopen the log");
        let mut gate = until("it waits to go on", || go.open_writer().ok());
        gate.write_all(b"go\n").expect("let it go on");
        until("it goes on logging", || {
            (pod.log("rotated") == ["stdout F after"]).then_some(())
        });
    });
}
