//! The system calls that a container's processes may make.

use std::{
    fs,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    thread,
};

use reaper_exec::{ContainerConfig, Executor};
use reaper_spec::{Capabilities, ContainerSpec, ExitStatus, Seccomp, User};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

use crate::{
    output::Output,
    rig::{Rig, cases},
};

cases! {
    filter_holds_for_init_and_exec,
    filter_is_loaded_before_capabilities_are_given_up,
    call_that_kills_ends_the_program_by_sigsys,
    filter_that_forbids_the_setup_fails_the_creation,
    filter_that_cannot_be_made_fails_the_creation,
    agent_decides_on_the_calls_of_init_and_exec,
    agent_that_is_not_there_fails_creation_and_start,
    files_keep_their_projects_where_a_quota_limits_who_may_set_none,
}

/// What `linux.seccomp` says.
fn read(seccomp: &Value) -> Seccomp {
    let spec = json!({ "process": { "args": ["true"] }, "linux": { "seccomp": seccomp } });
    let spec = ContainerSpec::parse(spec.to_string().as_bytes(), Path::new("/"));
    spec.unwrap().seccomp.unwrap()
}

/// Everything is allowed but to make directories: "Disk quota exceeded".
fn no_mkdir() -> Seccomp {
    read(&json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        "syscalls": [{
            "names": ["mkdir", "mkdirat"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": libc::EDQUOT,
        }],
    }))
}

/// Tries to make a directory, and shows whether a filter is in force.
fn script(rig: &Rig) -> String {
    let folder = rig.root.path().join("new");
    format!(
        "mkdir {} 2>&1 | grep -o 'Disk quota exceeded'; grep Seccomp: /proc/self/status",
        folder.display()
    )
}

const REFUSED: &str = "Disk quota exceeded\nSeccomp:\t2\n";

fn container(rig: &Rig, id: &str, script: &str, seccomp: Seccomp) -> (ContainerConfig, Output) {
    let (mut new, output) = rig.shell(id, script);
    new.seccomp = Some(seccomp);
    (new, output)
}

async fn filter_holds_for_init_and_exec(rig: &Rig) {
    for no_new_privileges in [false, true] {
        let script = script(rig);
        let init = format!("{script}; exec sleep 1000");
        let (mut new, mut output) = container(rig, "filtered", &init, no_mkdir());
        new.process.no_new_privileges = no_new_privileges;
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        rig.engine.start(&id).await.unwrap();
        let seen = format!("{}\n{}\n", output.line(), output.line());
        assert_eq!(seen, REFUSED, "no_new_privs: {no_new_privileges}");
        let (target, output) = rig.exec_shell(&id, "filtered-too", &script).await;
        rig.engine.executor().wait(&target).await.unwrap();
        assert_eq!(output.all(), REFUSED, "no_new_privs: {no_new_privileges}");
        rig.engine.delete(&id, true).await.unwrap();
    }
}

async fn filter_is_loaded_before_capabilities_are_given_up(rig: &Rig) {
    for no_new_privileges in [false, true] {
        let (mut new, output) = container(rig, "without", &script(rig), no_mkdir());
        new.process.no_new_privileges = no_new_privileges;
        new.process.capabilities = Some(Capabilities::default());
        new.process.user = Some(User {
            uid: 65534,
            gid: 65534,
            umask: None,
            additional_gids: Vec::new(),
        });
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        rig.engine.start(&id).await.unwrap();
        rig.engine.wait(&id).await.unwrap();
        rig.engine.delete(&id, false).await.unwrap();
        assert_eq!(output.all(), REFUSED, "no_new_privs: {no_new_privileges}");
    }
}

async fn call_that_kills_ends_the_program_by_sigsys(rig: &Rig) {
    let seccomp = read(&json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" }],
    }));
    let script = format!("exec mkdir {}/new", rig.root.path().display());
    let (new, _output) = container(rig, "killed", &script, seccomp);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    let exit = rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
    let by_sigsys = |signal| signal == libc::SIGSYS;
    assert!(
        matches!(exit.status, ExitStatus::Signaled { signal, .. } if by_sigsys(signal)),
        "{:?}",
        exit.status
    );
}

async fn filter_that_forbids_the_setup_fails_the_creation(rig: &Rig) {
    let seccomp = read(&json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["capset"], "action": "SCMP_ACT_ERRNO" }],
    }));
    let (mut new, _output) = container(rig, "refused", "true", seccomp);
    new.process.capabilities = Some(Capabilities::default());
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    assert!(error.contains("set the capabilities"), "{error}");
}

async fn filter_that_cannot_be_made_fails_the_creation(rig: &Rig) {
    let seccomp = read(&json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["call_of_tomorrow"], "action": "SCMP_ACT_ERRNO" }],
    }));
    let (new, _output) = container(rig, "refused", "true", seccomp);
    let error = rig.engine.create(new).await.unwrap_err().to_string();
    assert!(error.contains("call_of_tomorrow"), "{error}");
}

/// A filter by which an agent at `socket` decides on making directories.
fn by_agent(socket: &Path) -> Seccomp {
    read(&json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": socket,
        "listenerMetadata": "of the test",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
    }))
}

async fn agent_decides_on_the_calls_of_init_and_exec(rig: &Rig) {
    let socket = rig.root.path().join("agent");
    for no_new_privileges in [false, true] {
        let agent = UnixListener::bind(&socket).unwrap();
        let agent = thread::spawn(move || [decide_once(&agent), decide_once(&agent)]);
        let script = script(rig);
        let init = format!("{script}; exec sleep 1000");
        let (mut new, mut output) = container(rig, "asks", &init, by_agent(&socket));
        new.process.no_new_privileges = no_new_privileges;
        new.annotations = [("a".to_owned(), "b".to_owned())].into();
        let id = new.id.clone();
        rig.engine.create(new).await.unwrap();
        let pid = rig.engine.state(&id).await.unwrap().process.unwrap().pid;
        rig.engine.start(&id).await.unwrap();
        let seen = format!("{}\n{}\n", output.line(), output.line());
        assert_eq!(seen, REFUSED, "no_new_privs: {no_new_privileges}");
        let (target, output) = rig.exec_shell(&id, "asks-too", &script).await;
        rig.engine.executor().wait(&target).await.unwrap();
        assert_eq!(output.all(), REFUSED, "no_new_privs: {no_new_privileges}");
        rig.engine.delete(&id, true).await.unwrap();
        fs::remove_file(&socket).unwrap();

        let [init, exec] = agent.join().unwrap();
        assert_eq!(init["fds"], json!(["seccompFd"]));
        assert_eq!(init["metadata"], "of the test");
        assert_eq!(init["pid"], json!(pid));
        assert_eq!(init["state"]["id"], "asks");
        let status = if no_new_privileges {
            "created"
        } else {
            "creating"
        };
        assert_eq!(init["state"]["annotations"], json!({"a": "b"}));
        assert_eq!(init["state"]["status"], status);
        assert_eq!(init["state"]["bundle"], json!(rig.root.path()));
        assert_eq!(exec["state"]["status"], "running");
        assert_ne!(exec["pid"], init["pid"]);
        assert_eq!(exec["state"]["pid"], init["pid"]);
    }
}

/// What an agent is told of a process, whose next call it has fail.
fn decide_once(agent: &UnixListener) -> Value {
    let (connection, _) = agent.accept().unwrap();
    let mut text = vec![0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut text)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(&connection, &mut buffers, &mut control, flags).unwrap();
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    refuse_next(&descriptors.next().unwrap());
    serde_json::from_slice(&text[..received.bytes]).unwrap()
}

fn refuse_next(listener: &OwnedFd) {
    /// `SECCOMP_IOCTL_NOTIF_RECV`, `SECCOMP_IOCTL_NOTIF_SEND`: read and write, the size, `!`, the number.
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    // SAFETY: both structures are plain numbers, and those of the kernel; they outlive the calls.
    #[allow(unsafe_code)]
    unsafe {
        let mut asked: libc::seccomp_notif = std::mem::zeroed();
        assert_eq!(
            libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked),
            0
        );
        let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
        answer.id = asked.id;
        answer.error = -libc::EDQUOT;
        assert_eq!(libc::ioctl(listener.as_raw_fd(), SEND, &raw mut answer), 0);
    }
}

async fn agent_that_is_not_there_fails_creation_and_start(rig: &Rig) {
    let socket = rig.root.path().join("no-agent");
    let filtered = || container(rig, "alone", "true", by_agent(&socket)).0;
    let error = rig.engine.create(filtered()).await.unwrap_err().to_string();
    assert!(error.contains("no-agent"), "{error}");

    // With no_new_privs the filter is loaded at the start.
    let mut new = filtered();
    new.process.no_new_privileges = true;
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    let error = rig.engine.start(&id).await.unwrap_err().to_string();
    assert!(error.contains("no-agent"), "{error}");
    rig.engine.delete(&id, true).await.unwrap();
}

/// Shows whether a filter is in force.
const SHOW: &str = "grep Seccomp: /proc/self/status";

async fn files_keep_their_projects_where_a_quota_limits_who_may_set_none(rig: &Rig) {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let with = |bounding: &[&str], ambient: &[&str]| {
        Some(Capabilities {
            bounding: set(bounding),
            permitted: set(bounding),
            inheritable: set(ambient),
            ambient: set(ambient),
            ..Capabilities::default()
        })
    };
    let (admin, own) = (&["CAP_SYS_ADMIN"][..], &["CAP_CHOWN"][..]);
    let nobody = Some(User {
        uid: 65534,
        gid: 65534,
        umask: None,
        additional_gids: Vec::new(),
    });
    for (capabilities, user, is_limited, is_filtered) in [
        (with(own, &[]), None, true, true),
        (with(own, &[]), None, false, false),
        (with(admin, &[]), None, true, false),
        // After execve(2) it would have none.
        (with(admin, &[]), nobody.clone(), true, true),
        (with(admin, admin), nobody.clone(), true, false),
        (None, None, true, false),
        (None, nobody, true, true),
    ] {
        let (mut new, mut output) = rig.shell("limited", &format!("{SHOW}; exec sleep 1000"));
        new.process.capabilities = capabilities;
        new.process.user = user;
        new.view.rootfs = is_limited.then(|| crate::stalling::LIMITED.into());
        let tried = format!("{:?}, {is_limited}", new.process);
        let expected = if is_filtered {
            "Seccomp:\t2"
        } else {
            "Seccomp:\t0"
        };
        let (id, mut exec) = (new.id.clone(), new.process.clone());
        rig.engine.create(new).await.unwrap();
        rig.engine.start(&id).await.unwrap();
        assert_eq!(output.line(), expected, "{tried}");
        exec.args[2] = SHOW.to_owned();
        let (_, _, mut output) = rig.exec_process(&id, "limited", exec).await;
        assert_eq!(output.line(), expected, "{tried}");
        rig.engine.delete(&id, true).await.unwrap();
    }
}
