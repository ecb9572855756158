//! What a process may do: what its spec says, and no more.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use reaper_exec::{
    Executor,
    io::{StdioRequest, StreamTarget},
};
use reaper_spec::{Capabilities, ExitStatus, ProcessSpec, User};

use crate::{
    output::capture,
    rig::{Rig, cases},
};

cases! {
    process_has_the_capabilities_of_its_spec_and_no_others,
    user_other_than_root_keeps_ambient_capabilities_only,
    exec_has_capabilities_of_its_own,
    capability_that_cannot_be_granted_is_a_warning,
    process_without_capabilities_in_its_spec_keeps_the_callers,
    process_on_a_terminal_has_the_capabilities_of_its_spec,
    no_new_privileges_takes_its_effect_from_set_user_id_programs,
}

const SHOW: &str = "grep ^Cap /proc/self/status";
/// Numbers of capabilities(7).
const CHOWN: u32 = 0;
const KILL: u32 = 5;
const NET_BIND_SERVICE: u32 = 10;

/// All but the ambient set.
fn root_may(names: &[&str]) -> Capabilities {
    let names = || names.iter().map(|&name| name.to_owned()).collect();
    Capabilities {
        bounding: names(),
        effective: names(),
        permitted: names(),
        ..Capabilities::default()
    }
}

/// What /proc/PID/status shows of these sets.
fn shown([inheritable, permitted, effective, bounding, ambient]: [&[u32]; 5]) -> String {
    let line = |set: &str, numbers: &[u32]| {
        let bits: u64 = numbers.iter().map(|number| 1_u64 << number).sum();
        format!("Cap{set}:\t{bits:016x}\n")
    };
    [
        line("Inh", inheritable),
        line("Prm", permitted),
        line("Eff", effective),
        line("Bnd", bounding),
        line("Amb", ambient),
    ]
    .concat()
}

fn user(uid: u32) -> Option<User> {
    Some(User {
        uid,
        gid: uid,
        umask: None,
        additional_gids: Vec::new(),
    })
}

/// What a container's process writes, and the warnings of its creation.
async fn run(rig: &Rig, process: ProcessSpec) -> (String, Vec<String>) {
    let (stdio, output) = capture();
    let new = rig.container("limited", process, stdio);
    let id = new.id.clone();
    let (_, warnings) = rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
    (output.all(), warnings)
}

async fn process_has_the_capabilities_of_its_spec_and_no_others(rig: &Rig) {
    let mut process = rig.process(&["/bin/sh", "-c", SHOW]);
    process.capabilities = Some(root_may(&["CAP_CHOWN", "CAP_KILL"]));
    let two = &[CHOWN, KILL];
    let seen = run(rig, process.clone()).await;
    assert_eq!(seen, (shown([&[], two, two, two, &[]]), Vec::new()));

    process.capabilities = Some(Capabilities::default());
    let script = format!("{SHOW}; mknod {}/node c 1 3", rig.root.path().display());
    process.args[2] = script;
    let (seen, warnings) = run(rig, process).await;
    assert!(seen.starts_with(&shown([&[]; 5])), "{seen}");
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(
        !rig.root.path().join("node").exists(),
        "mknod(2) takes CAP_MKNOD"
    );
}

async fn user_other_than_root_keeps_ambient_capabilities_only(rig: &Rig) {
    let mut process = rig.process(&["/bin/sh", "-c", SHOW]);
    process.user = user(65534);
    process.capabilities = Some(root_may(&["CAP_NET_BIND_SERVICE"]));
    let one = &[NET_BIND_SERVICE];
    let (seen, _) = run(rig, process.clone()).await;
    assert_eq!(seen, shown([&[], &[], &[], one, &[]]));

    let name = || vec!["CAP_NET_BIND_SERVICE".to_owned()];
    process.capabilities = Some(Capabilities {
        inheritable: name(),
        ambient: name(),
        ..root_may(&["CAP_NET_BIND_SERVICE"])
    });
    let (seen, warnings) = run(rig, process).await;
    assert_eq!(seen, shown([one; 5]));
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// What an exec'd process writes that is to have these, and what it was refused.
async fn exec(rig: &Rig, capabilities: Capabilities) -> (String, Vec<String>) {
    let (id, _output) = rig.start_shell("web", "exec sleep 1000").await;
    let mut process = rig.process(&["/bin/sh", "-c", SHOW]);
    process.capabilities = Some(capabilities);
    let (created, target, output) = rig.exec_process(&id, "show", process).await;
    let exit = rig.engine.executor().wait(&target).await.unwrap();
    assert_eq!(exit.status, ExitStatus::Exited { code: 0 });
    rig.engine.delete(&id, true).await.unwrap();
    (output.all(), created.refused)
}

async fn exec_has_capabilities_of_its_own(rig: &Rig) {
    let one = &[KILL];
    let seen = exec(rig, root_may(&["CAP_KILL"])).await;
    assert_eq!(seen, (shown([&[], one, one, one, &[]]), Vec::new()));
}

async fn capability_that_cannot_be_granted_is_a_warning(rig: &Rig) {
    let wanted = Capabilities {
        // It is not inheritable.
        ambient: vec!["CAP_KILL".to_owned()],
        ..root_may(&["CAP_KILL", "CAP_OF_TOMORROW"])
    };
    let one = &[KILL];
    let refused = vec!["not granted: CAP_KILL as ambient, CAP_OF_TOMORROW".to_owned()];
    assert_eq!(
        exec(rig, wanted).await,
        (shown([&[], one, one, one, &[]]), refused)
    );
}

async fn process_without_capabilities_in_its_spec_keeps_the_callers(rig: &Rig) {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = own.lines().find(|line| line.starts_with("CapBnd:"));
    let (seen, _) = run(rig, rig.process(&["/bin/sh", "-c", SHOW])).await;
    assert_eq!(seen.lines().nth(3), bounding);
}

async fn process_on_a_terminal_has_the_capabilities_of_its_spec(rig: &Rig) {
    let log = rig.root.path().join("log");
    let mut process = rig.process(&["/bin/sh", "-c", &format!("test -t 1 && {SHOW}")]);
    process.capabilities = Some(root_may(&["CAP_KILL"]));
    process.terminal = true;
    let mut stdio = StdioRequest::default();
    stdio.streams.stdout = StreamTarget::Uri(format!("file://{}", log.display()));
    let new = rig.container("on-terminal", process, stdio);
    let id = new.id.clone();
    rig.engine.create(new).await.unwrap();
    rig.engine.start(&id).await.unwrap();
    rig.engine.wait(&id).await.unwrap();
    rig.engine.delete(&id, false).await.unwrap();
    let seen = fs::read_to_string(&log).unwrap().replace('\r', "");
    let one = &[KILL];
    assert_eq!(seen, shown([&[], one, one, one, &[]]));
    fs::remove_file(log).unwrap();
}

async fn no_new_privileges_takes_its_effect_from_set_user_id_programs(rig: &Rig) {
    let copy = rig.root.path().join("id");
    fs::copy("/usr/bin/id", &copy).unwrap();
    fs::set_permissions(rig.root.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
    for (no_new_privileges, uid) in [(false, "0"), (true, "65534")] {
        let mut process = rig.process(&[copy.to_str().unwrap(), "-u"]);
        process.user = user(65534);
        process.capabilities = Some(root_may(&["CAP_KILL"]));
        process.no_new_privileges = no_new_privileges;
        let (seen, _) = run(rig, process).await;
        assert_eq!(seen.trim(), uid, "no_new_privileges: {no_new_privileges}");
    }
    fs::remove_file(copy).unwrap();
}
