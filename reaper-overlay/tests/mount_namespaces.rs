//! A base is one, from whatever mount namespace it is used.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use common::*;
use nix::{
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare},
    unistd::Pid,
};
use reaper_overlay::{Error, Overlays, Session, SharedOverlay};
use reaper_spec::{Mount, OverlayScope};
use rustix::mount::MountPropagationFlags;

const DIR: &str = "REAPER_ELSEWHERE_DIR";

/// One that starts containers in another mount namespace, as a service with private mounts does.
struct Elsewhere(Child);

impl Elsewhere {
    /// Has it say when it is ready, which is when it has done `what`.
    fn start(dir: &Path, what: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                &beside("elsewhere"),
                "--test-threads=1",
                "--nocapture",
            ])
            .env(DIR, dir)
            .env("REAPER_ELSEWHERE", what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut this = Self(child);
        this.expect_ready();
        this
    }

    fn expect_ready(&mut self) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        let ready = lines.any(|line| line.unwrap().ends_with("READY"));
        assert!(ready, "it has failed");
    }

    fn end(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

/// A process in the mount namespace of the calling thread, as a monitor is: it is by processes, not
/// by the threads of tests, that a namespace is found.
struct Process(Child);

impl Process {
    fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// The other process.
#[test]
fn elsewhere() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let dir = Path::new(&dir);
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    );
    let _process = Process::start();
    let mut request = request(dir, "elsewhere", OverlayScope::Node);
    let what = std::env::var("REAPER_ELSEWHERE").unwrap();
    if what.contains("disk") {
        request.overlay.base = dir.join("disk/base");
    }
    if what.contains("limit") {
        request.overlay.size_per_scope = Some(4 << 20);
    }
    request.mounts.push(Mount {
        destination: "/from/elsewhere".into(),
        typ: Some("bind".to_owned()),
        source: Some("/etc".into()),
        options: vec!["bind".to_owned()],
    });
    let session = open(&request);
    sh(
        &session,
        "touch /by-elsewhere; test -e /from/elsewhere/passwd",
    );
    // Volumes are taken from where they were asked for.
    mount_tmpfs(&dir.join("own"));
    fs::write(dir.join("own/file"), "own").unwrap();
    let mut other = request.clone();
    other.id = "other".parse().unwrap();
    other.mounts[0].source = Some(dir.join("own"));
    let other = open(&other);
    assert_eq!(sh(&other, "cat /from/elsewhere/file"), "own");
    other.close().unwrap();
    println!("\nREADY");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    sh(&session, "touch /still-by-elsewhere");
    session.close().unwrap();
}

#[test]
fn a_start_from_another_mount_namespace_joins_the_live_scope() {
    isolated(|dir| {
        let _process = Process::start();
        let server = open(&request(dir, "server", OverlayScope::Node));
        sh(&server, "touch /by-server");
        let elsewhere = Elsewhere::start(dir, "tmpfs");
        sh(&server, "touch /srv/x; mkdir /opt/z; ls /by-elsewhere");
        let third = open(&request(dir, "third", OverlayScope::Node));
        sh(&third, "touch /var/y; ls /by-elsewhere /by-server");
        third.close().unwrap();
        elsewhere.end();
        sh(&server, "ls /still-by-elsewhere; test ! -e /from");
        server.close().unwrap();
    });
}

#[test]
fn a_scope_that_is_made_from_another_mount_namespace_has_its_limit() {
    isolated(|dir| {
        let _process = Process::start();
        let server = open(&request(dir, "server", OverlayScope::Container));
        let elsewhere = Elsewhere::start(dir, "limit");
        let (overlays, node) = overlays(&request(dir, "here", OverlayScope::Node));
        let limit = || overlays.inspect(&node).unwrap().unwrap().limit;
        assert_eq!(limit(), Some(4 << 20));
        elsewhere.end();
        assert_eq!(limit(), Some(4 << 20), "it is the node's");
        overlays.remove(&node).unwrap();
        server.close().unwrap();
    });
}

/// Linux 6.18 numbers namespaces by ranges of processors, which decides where one can be bound.
#[test]
fn a_root_that_a_container_closed_is_mounted_again_whatever_processors_number_the_namespaces() {
    isolated(|dir| {
        let _process = Process::start();
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let processors: Vec<usize> = (0..CpuSet::count())
            .filter(|cpu| all.is_set(*cpu).unwrap())
            .collect();
        let (first, last) = (processors[0], processors[processors.len() - 1]);
        for (node, starter) in [(first, last), (last, first)] {
            run_on(node);
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            change(
                "/",
                MountPropagationFlags::SHARED | MountPropagationFlags::REC,
            );
            let _process = Process::start();
            run_on(starter);
            let mut request = request(dir, "closes", OverlayScope::Node);
            request.overlay.base = dir.join(format!("base-{node}"));
            let closes = open(&request);
            sh(&closes, "chmod 400 /");
            closes.close().unwrap();
            let next = open(&request);
            sh(&next, "test $(stat -c %a /) = 400");
            next.close().unwrap();
        }
    });
}

/// Has the calling thread, and what it forks, run on one processor.
fn run_on(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// Scopes that were first made in a private namespace are found, and are not made again or emptied.
fn made_elsewhere(dir: &Path, what: &str, base: &Path) {
    let elsewhere = Elsewhere::start(dir, what);
    let mut here = request(dir, "here", OverlayScope::Node);
    here.overlay.base = base.to_owned();
    let overlays = Overlays::new(&here.overlay);
    let node = overlays.list().unwrap().pop().unwrap();
    assert_eq!(node.members, ["elsewhere"]);
    assert!(node.mounted);
    for refused in [overlays.reset(&node.scope), overlays.remove(&node.scope)] {
        assert!(
            matches!(refused, Err(Error::ScopeBusy { .. })),
            "{refused:?}"
        );
    }
    let session = open(&here);
    assert_eq!(sh(&session, "ls /by-elsewhere"), "/by-elsewhere");
    let mut own = here.clone();
    own.overlay.scope = OverlayScope::Container;
    // A scope that is made from here is made where the others are.
    let own = open(&own);
    sh(&own, "touch /mark; test ! -e /by-elsewhere");
    own.close().unwrap();
    overlays.remove(&"container-here".parse().unwrap()).unwrap();
    elsewhere.end();
    sh(&session, "ls /still-by-elsewhere");
    session.close().unwrap();
    // No process is left there: the base is this namespace's now.
    let session = open(&here);
    sh(&session, "ls /still-by-elsewhere; touch /opt/here");
    session.close().unwrap();
    overlays.remove(&node.scope).unwrap();
}

#[test]
fn a_scope_on_a_tmpfs_that_was_made_in_a_private_namespace_is_the_nodes() {
    isolated(|dir| {
        // As after a first start in the node's own namespace: the tmpfs is seen everywhere.
        let base = dir.join("base");
        open(&request(dir, "first", OverlayScope::Node))
            .close()
            .unwrap();
        fs::write(dir.join("base.lock"), "").unwrap();
        made_elsewhere(dir, "tmpfs", &base);
    });
}

#[test]
fn a_scope_on_a_disk_that_was_made_in_a_private_namespace_is_the_nodes() {
    isolated(|dir| {
        mount_ext4(&dir.join("image"), &dir.join("disk"));
        made_elsewhere(dir, "disk", &dir.join("disk/base"));
    });
}

#[test]
fn layers_in_use_by_processes_out_of_sight_are_not_mounted_again() {
    isolated(|dir| {
        mount_ext4(&dir.join("image"), &dir.join("disk"));
        let mut request = request(dir, "here", OverlayScope::Node);
        request.overlay.base = dir.join("disk/base");
        open(&request).close().unwrap();
        let layers = request.overlay.base.join("scopes/node");
        let held = fs::File::open(layers).unwrap();
        rustix::fs::flock(&held, rustix::fs::FlockOperation::LockShared).unwrap();
        let refused = Session::open(&SharedOverlay::new(), &request)
            .err()
            .unwrap();
        assert!(
            matches!(refused, Error::MountedElsewhere { .. }),
            "{refused}"
        );
        let refused = Overlays::new(&request.overlay).reset(&"node".parse().unwrap());
        assert!(matches!(refused, Err(Error::MountedElsewhere { .. })));
        drop(held);
        open(&request).close().unwrap();
    });
}

#[test]
fn a_scope_without_members_shows_what_the_node_has_changed_since() {
    isolated(|dir| {
        let node = request(dir, "a", OverlayScope::Node);
        let (file, new) = (dir.join("file"), dir.join("new"));
        fs::write(&file, "old").unwrap();
        let look = format!("cat {} {} 2>/dev/null; true", file.display(), new.display());
        let session = open(&node);
        assert_eq!(sh(&session, &look), "old");
        sh(&session, "echo kept >/mark");
        session.close().unwrap();
        fs::write(dir.join("file.new"), "replaced ").unwrap();
        fs::rename(dir.join("file.new"), &file).unwrap();
        fs::write(&new, "made").unwrap();
        let session = open(&node);
        assert_eq!(sh(&session, &look), "replaced made");
        assert_eq!(sh(&session, "cat /mark"), "kept");
        session.close().unwrap();
    });
}
