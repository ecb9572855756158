//! What engines rely on: pid files, console sockets.

use std::{
    fs::{self, File},
    io::{IoSliceMut, Read},
    mem::MaybeUninit,
    os::unix::net::UnixListener,
    process::Stdio,
};

use nix::sys::{
    signal::{Signal, kill},
    wait::{WaitStatus, waitpid},
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::rig::{Rig, become_subreaper, first_line, pid_in, shell};

#[test]
fn pid_file_names_process_that_mirrors_container_exit() {
    become_subreaper();
    let rig = Rig::new();
    let file = rig.path("pid");
    let pid_file = file.to_str().unwrap();
    let created = |script: &str| {
        let bundle = rig.shell(script);
        rig.quietly(&["create", "--bundle", &bundle, "--pid-file", pid_file, "c"]);
        pid_in(&file)
    };

    let pid = created("exit 21");
    assert_ne!(
        rig.state("c")["pid"],
        pid.as_raw(),
        "state has the program's own"
    );
    rig.ok(&["start", "c"]);
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 21));
    assert_eq!(rig.state("c")["exit_code"], 21);
    rig.ok(&["delete", "c"]);

    let pid = created("exec sleep 1000");
    rig.ok(&["start", "c"]);
    rig.ok(&["kill", "c", "INT"]);
    assert_eq!(
        waitpid(pid, None).unwrap(),
        WaitStatus::Signaled(pid, Signal::SIGINT, false)
    );
    rig.ok(&["delete", "c"]);

    let pid = created("exec sleep 1000");
    rig.ok(&["start", "c"]);
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(
        waitpid(pid, None).unwrap(),
        WaitStatus::Signaled(pid, Signal::SIGTERM, false)
    );
    rig.ok(&["delete", "c"]);
}

#[test]
fn who_enters_by_the_pid_file_sees_the_containers_files() {
    become_subreaper();
    let rig = Rig::with_overlay();
    let file = rig.path("pid");
    let pid_file = file.to_str().unwrap();
    let bundle = rig.shell("echo inside > /srv/made; echo ready; exec sleep 1000");
    let args = ["run", "--bundle", &bundle, "--pid-file", pid_file, "c"];
    let mut child = rig.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(first_line(&mut child), "ready");
    let pid = pid_in(&file);
    let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(
        mounts(&pid.to_string()),
        mounts(&rig.state("c")["pid"].to_string())
    );
    let made = fs::read_to_string(format!("/proc/{pid}/root/srv/made")).unwrap();
    assert_eq!(made, "inside\n");

    // So does who enters by that of an exec, from the moment on at which it can be read. A folder of
    // the caller's alone has it: it is written in the caller's mounts.
    let mine = rig.path("mine");
    let file = mine.join("exec-pid");
    let prepare = format!("mkdir {0} && mount -t tmpfs mine {0}", mine.display());
    let script = format!(
        "{prepare} && \"$0\" \"$@\" >/dev/null 2>&1 && cat {}",
        file.display()
    );
    let args = [
        "exec",
        "--detach",
        "--pid-file",
        file.to_str().unwrap(),
        "c",
        "sleep",
        "1000",
    ];
    let output = rig.command_by(&script, &args).output().unwrap();
    let exec = String::from_utf8(output.stdout).unwrap();
    assert_eq!(mounts(&exec), mounts(&pid.to_string()));
    let made = fs::read_to_string(format!("/proc/{exec}/root/srv/made")).unwrap();
    assert_eq!(made, "inside\n");

    // Who kills it has killed the container.
    kill(pid, Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn a_pid_file_that_cannot_be_written_leaves_no_process() {
    become_subreaper();
    let rig = Rig::new();
    let bundle = rig.shell("exec sleep 1000");
    for command in ["create", "run"] {
        let args = [
            command,
            "--bundle",
            &bundle,
            "--pid-file",
            "/no/such/pid",
            "c",
        ];
        let error = rig.fails(1, &args);
        assert!(error.contains("/no/such/pid"), "{error}");
        rig.fails(1, &["state", "c"]);
    }
}

#[test]
fn detached_run_pid_file_names_process_that_mirrors_exit() {
    become_subreaper();
    let rig = Rig::new();
    let file = rig.path("pid");
    let bundle = rig.shell("exit 33");
    let pid_file = file.to_str().unwrap();
    let args = [
        "run",
        "--detach",
        "--bundle",
        &bundle,
        "--pid-file",
        pid_file,
        "c",
    ];
    rig.quietly(&args);
    let pid = pid_in(&file);
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 33));
}

#[test]
fn an_engines_container_writes_where_create_did() {
    let rig = Rig::new();
    let bundle = rig.shell("echo for the engine");
    let log = rig.path("log").display().to_string();
    let out = rig.path("out");
    let args = [
        "--log",
        &log,
        "--log-format",
        "json",
        "create",
        "--bundle",
        &bundle,
        "c",
    ];
    let status = rig
        .command(&args)
        .stdout(File::create(&out).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(rig.ok(&["start", "c"]), "");
    rig.ok(&["wait", "c"]);
    assert_eq!(fs::read_to_string(out).unwrap(), "for the engine\n");
}

#[test]
fn a_console_socket_gets_the_master() {
    let rig = Rig::new();
    let path = rig.path("console");
    let socket = UnixListener::bind(&path).unwrap();
    let mut process = shell("tty; stty size");
    process["terminal"] = true.into();
    process["consoleSize"] = serde_json::json!({"width": 91, "height": 23});
    let bundle = rig.bundle("tty", &process);
    rig.ok(&[
        "create",
        "--bundle",
        &bundle,
        "--console-socket",
        path.to_str().unwrap(),
        "c",
    ]);
    let mut master = receive(&socket);
    rig.ok(&["start", "c"]);
    rig.ok(&["wait", "c"]);
    let mut text = String::new();
    // The terminal's end is EIO.
    let _ = master.read_to_string(&mut text);
    assert!(
        text.starts_with("/dev/pts/") && text.ends_with("23 91\r\n"),
        "{text:?}"
    );
}

#[test]
fn a_console_socket_works_for_a_detached_exec() {
    let rig = Rig::new();
    rig.running("c");
    let path = rig.path("console");
    let socket = UnixListener::bind(&path).unwrap();
    let console = path.to_str().unwrap();
    let args = [
        "exec",
        "--detach",
        "--tty",
        "--console-socket",
        console,
        "c",
        "sh",
        "-c",
        "tty",
    ];
    rig.quietly(&args);
    let mut text = String::new();
    let _ = receive(&socket).read_to_string(&mut text);
    assert!(text.starts_with("/dev/pts/"), "{text:?}");
}

fn receive(socket: &UnixListener) -> File {
    let (connection, _) = socket.accept().unwrap();
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let name = &mut [IoSliceMut::new(&mut name)];
    recvmsg(&connection, name, &mut ancillary, RecvFlags::CMSG_CLOEXEC).unwrap();
    let master = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    File::from(master.expect("a descriptor"))
}
