//! Engines that drive `reaper-runtime`: podman, and containerd's own runc shim.

use std::process::Command;

use reaper_tests::{
    Node,
    ctr::Output,
    faults::process_named,
    image::BUSYBOX,
    on_each,
    podman::{Podman, with_podman},
    pty::Terminal,
    runtime::until,
    suite::reaper_program,
};

/// A shell that says that it is asked to end, and then does.
const GRACEFUL: &str = "trap 'echo asked; exit 7' TERM; echo up; sleep 1091 & wait";

#[test]
fn podman_runs_programs_to_their_exact_end() {
    with_podman(|podman| {
        let run = |script: &str| podman.run(&["--rm"], &["/bin/sh", "-c", script]);
        let output = run("echo out; echo err >&2");
        assert_eq!((output.code, output.stdout.as_str()), (0, "out\n"));
        assert_eq!(output.stderr, "err\n");
        assert_eq!(run("exit 3").code, 3);
        assert_eq!(run("kill -TERM $$").code, 143);
        assert_eq!(run("kill -KILL $$").code, 137);

        let absent = podman.run(&["--rm"], &["/no/such/program"]);
        // The program may appear until it is started, which is too late for podman's 127.
        assert_eq!(absent.code, 126, "{absent:?}");
        assert!(
            absent
                .stderr
                .contains("exec /no/such/program: No such file or directory"),
            "{absent:?}"
        );
        assert_eq!(podman.call(&["ps", "--all", "--quiet"]).stdout, "");
    });
}

#[test]
fn podman_sees_a_detached_container_through_its_life() {
    with_podman(|podman| {
        detach(podman, "stays", GRACEFUL);
        process_named("sleep 1091");
        let status = podman.call(&["ps", "--format", "{{.Names}} {{.Status}}"]);
        assert!(status.stdout.starts_with("stays Up "), "{status:?}");
        let stats = podman.call(&["stats", "--no-stream", "--format", "{{.Name}}", "stays"]);
        assert_eq!(stats.assert_success(), "stays\n");

        let exec = |args: &[&str]| podman.call(&[&["exec", "stays"], args].concat());
        let output = exec(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]);
        assert_eq!((output.code, output.stdout.as_str()), (3, "out\n"));
        assert!(output.stderr.starts_with("err\n"), "{output:?}");
        assert_eq!(exec(&["/bin/true"]).code, 0);
        assert_eq!(exec(&["/bin/sh", "-c", "kill -TERM $$"]).code, 143);
        assert_eq!(exec(&["/bin/sh", "-c", "kill -KILL $$"]).code, 137);
        assert_eq!(exec(&["/no/such/program"]).code, 127);

        podman
            .call(&["stop", "--time", "60", "stays"])
            .assert_success();
        assert_eq!(podman.call(&["logs", "stays"]).stdout, "up\nasked\n");
        assert_eq!(exit_code(podman, "stays"), "7");
        podman.call(&["start", "stays"]).assert_success();
        process_named("sleep 1091");
        podman.call(&["kill", "stays"]).assert_success();
        assert_eq!(podman.call(&["wait", "stays"]).stdout, "137\n");
        podman.call(&["rm", "stays"]).assert_success();
    });
}

#[test]
fn podman_copies_files_to_and_from_the_container() {
    with_podman(|podman| {
        let name = format!("/var/tmp/{}", podman.node().marker());
        let script = format!("echo inside > {name}-made; exec sleep 1092");
        detach(podman, "copied", &script);
        process_named("sleep 1092");
        let work = podman.node().work();
        let (out, given) = (work.join("out"), work.join("given"));
        std::fs::write(&given, "given\n").expect("write a file");
        let (out, given) = (out.to_str().unwrap(), given.to_str().unwrap());
        let copy = |from: &str, to: &str| podman.call(&["cp", from, to]).assert_success();
        copy(&format!("copied:{name}-made"), out);
        assert_eq!(std::fs::read_to_string(out).expect("read it"), "inside\n");
        let given_to = format!("{name}-given");
        copy(given, &format!("copied:{given_to}"));
        let read = podman.call(&["exec", "copied", "/bin/cat", &given_to]);
        assert_eq!(read.assert_success(), "given\n");
        let on_node = std::path::Path::new(&given_to).exists();
        let _ = std::fs::remove_file(&given_to);
        assert!(!on_node, "it is on the node");
        podman
            .call(&["rm", "--force", "--time", "0", "copied"])
            .assert_success();
    });
}

#[test]
fn podman_kills_on_stop_timeout_and_on_forced_removal() {
    with_podman(|podman| {
        detach(
            podman,
            "stubborn",
            "trap '' TERM; while :; do sleep 1092; done",
        );
        process_named("sleep 1092");
        podman
            .call(&["stop", "--time", "1", "stubborn"])
            .assert_success();
        assert_eq!(exit_code(podman, "stubborn"), "137");
        podman.call(&["rm", "stubborn"]).assert_success();

        detach(podman, "runs", "exec sleep 1093");
        let sleep = process_named("sleep 1093");
        podman
            .call(&["rm", "--force", "--time", "0", "runs"])
            .assert_success();
        assert!(!sleep.is_alive());
    });
}

#[test]
fn podman_gives_terminals_of_the_right_size() {
    with_podman(|podman| {
        let mut terminal = Terminal::spawn(
            &podman.run_command(&["--rm", "--interactive", "--tty"], &shell_on_a_terminal()),
        );
        see_a_terminal(&mut terminal);
        assert_eq!(terminal.finish().code, 31);

        detach(podman, "rests", "exec sleep 1094");
        let mut command = podman.command(&["exec", "--interactive", "--tty", "rests"]);
        command.args(shell_on_a_terminal());
        let mut terminal = Terminal::spawn(&command);
        see_a_terminal(&mut terminal);
        assert_eq!(terminal.finish().code, 31);
        podman
            .call(&["rm", "--force", "--time", "0", "rests"])
            .assert_success();
    });
}

#[test]
fn the_runc_shim_runs_programs_to_their_exact_end() {
    on_each(|node| {
        let run = |name: &str, script: &str| {
            let args = ["/bin/sh", "-c", script];
            Output::of(&mut run_by_runc(node, name, &["--rm"], &args))
        };
        let output = run("says", "echo out; echo err >&2; exit 3");
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (3, "out\n"),
            "{output:?}"
        );
        assert!(output.stderr.starts_with("err\n"), "{output:?}");
        assert_eq!(run("killed", "kill -KILL $$").code, 137);

        let command = run_by_runc(node, "tty", &["--rm", "--tty"], &shell_on_a_terminal());
        let mut terminal = Terminal::spawn(&command);
        see_a_terminal(&mut terminal);
        assert_eq!(terminal.finish().code, 31);
    });
}

#[test]
fn the_runc_shim_execs_pauses_and_kills() {
    on_each(|node| {
        let id = node.name("rests");
        let sleep = ["/bin/sleep", "1095"];
        Output::of(&mut run_by_runc(node, "rests", &["--detach"], &sleep)).assert_success();
        let init = process_named("/bin/sleep 1095");
        node.ctr(&["task", "metrics", &id]).assert_success();

        let output = Output::of(&mut exec_by_runc(
            node,
            &id,
            &[],
            &["/bin/sh", "-c", "exit 4"],
        ));
        assert_eq!(output.code, 4, "{output:?}");
        let command = exec_by_runc(node, &id, &["--tty"], &shell_on_a_terminal());
        let mut terminal = Terminal::spawn(&command);
        see_a_terminal(&mut terminal);
        assert_eq!(terminal.finish().code, 31);

        node.ctr(&["task", "pause", &id]).assert_success();
        assert!(task_status(node, &id).contains("PAUSED"));
        node.ctr(&["task", "resume", &id]).assert_success();
        assert!(task_status(node, &id).contains("RUNNING"));

        let waiting = node.api().wait(&id, "");
        node.ctr(&["task", "kill", "--signal", "SIGKILL", &id])
            .assert_success();
        assert_eq!(waiting.finish().expect("wait").code, 137);
        assert!(!init.is_alive());
        node.ctr(&["task", "rm", &id]).assert_success();
        node.ctr(&["container", "rm", &id]).assert_success();
    });
}

/// That shim signals an exec by the pid in its pid file, which is not the exec's own.
#[test]
fn an_exec_dies_with_the_process_that_its_pid_file_names() {
    on_each(|node| {
        let id = node.name("rests");
        let sleep = ["/bin/sleep", "1096"];
        Output::of(&mut run_by_runc(node, "rests", &["--detach"], &sleep)).assert_success();
        let init = process_named("/bin/sleep 1096");

        let mut command = exec_by_runc(node, &id, &["--detach"], &["/bin/sleep", "1097"]);
        Output::of(&mut command).assert_success();
        let exec = process_named("/bin/sleep 1097");
        let waiting = node.api().wait(&id, "one");
        let kill = ["task", "kill", "--exec-id", "one", "--signal", "KILL"];
        node.ctr(&[&kill[..], &[&id]].concat()).assert_success();
        assert_eq!(waiting.finish().expect("wait").code, 137);
        until("the exec ends", || (!exec.is_alive()).then_some(()));
        assert!(init.is_alive());

        node.ctr(&["task", "rm", "--force", &id]);
        node.ctr(&["container", "rm", &id]).assert_success();
    });
}

/// `podman run --detach` of a shell.
fn detach(podman: &Podman<'_>, name: &str, script: &str) {
    let options = ["--detach", "--name", name];
    podman
        .run(&options, &["/bin/sh", "-c", script])
        .assert_success();
}

/// The exit code that podman has noted.
fn exit_code(podman: &Podman<'_>, name: &str) -> String {
    let inspected = podman.call(&["inspect", "--format", "{{.State.ExitCode}}", name]);
    inspected.assert_success().trim().to_owned()
}

/// `ctr run` by containerd's own shim, with Reaper in runc's place.
fn run_by_runc(node: &Node, name: &str, options: &[&str], args: &[&str]) -> Command {
    let mut command = node.ctr_command();
    command
        .args(["run", "--runtime", "io.containerd.runc.v2", "--net-host"])
        .arg("--runc-binary")
        .arg(reaper_program("reaper-runtime"))
        .arg("--runc-root")
        .arg(node.state_root())
        .arg("--fifo-dir")
        .arg(node.dir().join("fifo"))
        .args(options)
        .arg(BUSYBOX)
        .arg(node.name(name))
        .args(args);
    command
}

/// `ctr task exec`.
fn exec_by_runc(node: &Node, id: &str, options: &[&str], args: &[&str]) -> Command {
    let mut command = node.ctr_command();
    command
        .args(["task", "exec", "--exec-id", "one", "--fifo-dir"])
        .arg(node.dir().join("fifo"))
        .args(options)
        .arg(id)
        .args(args);
    command
}

/// What `ctr task ls` says of a task.
fn task_status(node: &Node, id: &str) -> String {
    let list = node.ctr(&["task", "ls"]).assert_success();
    let line = list.lines().find(|line| line.starts_with(id));
    line.unwrap_or_else(|| panic!("no {id} in {list}"))
        .to_owned()
}

/// A shell with a prompt that no echo of a command can be taken for.
fn shell_on_a_terminal() -> [&'static str; 3] {
    ["/bin/sh", "-c", "PS1='rea''dy> ' exec sh -i"]
}

/// Types commands that show a terminal, its size and a change of it. The shell ends with 31.
fn see_a_terminal(terminal: &mut Terminal) {
    terminal.expect("ready> ");
    terminal.send("tty\n");
    terminal.expect("/dev/pts/");
    terminal.expect("ready> ");
    // The sizes take a way of their own, and may come later than what is typed.
    terminal.send("until stty size | grep '24 8''0'; do :; done\n");
    terminal.expect("24 80");
    terminal.expect("ready> ");
    terminal.send("until stty size | grep '33 9''9'; do :; done; exit 31\n");
    terminal.resize_until(99, 33, "33 99");
}
