//! Tests on this machine's hierarchies, by topic, and what they share.

use std::{
    os::fd::AsFd as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

mod claims;
mod files;
mod lifecycle;
mod processes;
mod v1;

/// The machine's hierarchy of version 2. Where it has version 1 alone, this thread and those that it
/// starts get a mount of it.
fn hierarchy() -> Hierarchy {
    if let Some(found) = Hierarchy::find().expect("mountinfo") {
        return found;
    }
    let dir = PathBuf::from("/tmp/reaper-exec-cgroup2");
    if let Some(mounted) = Hierarchy::at(&dir) {
        return mounted;
    }
    std::fs::create_dir_all(&dir).expect("a directory for it");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("mounts of its own");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    let none = MsFlags::empty();
    mount(Some("test"), &dir, Some("cgroup2"), none, None::<&str>)
        .expect("these tests need a kernel with cgroup v2");
    Hierarchy::at(&dir).expect("the hierarchy that was mounted")
}

/// A name that no other test has.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("reaper-exec-test-{}-{number}", std::process::id())
}

/// This process's claim.
fn own(is_named: bool) -> Claim {
    claim_of(std::process::id(), is_named)
}

fn claim_of(pid: u32, is_named: bool) -> Claim {
    let owner = crate::procfs::identify(pid).expect("a process");
    Claim::new(owner, is_named)
}

/// A container's cgroup that is emptied and removed at the end, however the test ends.
struct Scratch(ContainerCgroup);

impl Scratch {
    fn new() -> Self {
        Self::at(Path::new(&unique()))
    }

    fn at(relative: &Path) -> Self {
        Self(ContainerCgroup::create(&hierarchy(), relative, &own(false)).expect("create"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.path().exists() {
            self.0.kill().expect("kill");
            until_empty(&self.0);
            self.0.remove().expect("remove");
        }
    }
}

/// Waits until the kernel reports what `done` looks for.
fn until(cgroup: &ContainerCgroup, done: impl Fn(Events) -> bool) {
    let file = cgroup.events_fd().expect("events");
    while !done(read_events(&file).expect("read")) {
        poll(
            &mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)],
            PollTimeout::NONE,
        )
        .expect("poll");
    }
}

fn until_empty(cgroup: &ContainerCgroup) {
    until(cgroup, |events| !events.populated);
}

/// A child of this process in a leaf.
fn spawn_in(leaf: &Leaf, script: &str) -> Child {
    // The shell joins by itself, and then says so by closing its output.
    let procs = leaf.path().join("cgroup.procs");
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("echo 0 > \"$0\" && exec >/dev/null && {script}"),
        ])
        .arg(procs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("sh");
    let mut out = child.stdout.take().expect("stdout");
    std::io::copy(&mut out, &mut std::io::sink()).expect("joined");
    child
}

fn sorted(mut pids: Vec<(u32, String)>) -> Vec<(u32, String)> {
    pids.sort();
    pids
}
