//! What the tests of this folder share.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "each test program uses a part of it"
)]

pub mod kernel;
pub mod user;

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use nix::sched::{CloneFlags, unshare};
use reaper_overlay::{
    ApplyMode, Change, Error, Overlays, Scope, Session, SharedOverlay, ViewRequest,
};
use reaper_spec::{ContainerId, OverlayScope};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

const INSIDE: &str = "REAPER_OVERLAY_TEST_INSIDE";

/// Runs `test` alone in a process of its own, with mounts of its own that all vanish with it. The
/// argument is an empty tmpfs. The tree is shared among itself, as on a node with systemd.
pub fn isolated(test: impl FnOnce(&Path)) {
    if std::env::var_os(INSIDE).is_some() {
        kernel::become_older();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        );
        change(
            "/",
            MountPropagationFlags::SHARED | MountPropagationFlags::REC,
        );
        leave_others_mounts();
        let dir = std::env::current_dir().unwrap();
        mount_tmpfs(&dir);
        // The tmpfs came over it.
        std::env::set_current_dir(&dir).unwrap();
        return test(&dir);
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--test-threads=1", "--nocapture"])
        .env(INSIDE, "1")
        .current_dir(dir.path())
        .output()
        .unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(
        output.status.success(),
        "{name}:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Unmounts here what others have mounted for a while, other tests above all: when they remove its place the kernel
/// unmounts it in the middle of this test.
fn leave_others_mounts() {
    let is_others = |path: &Path| {
        let mut places = ["/run", "/tmp"].iter().map(Path::new);
        places.any(|place| path.starts_with(place) && path != place)
    };
    let mounts = reaper_overlay::mountinfo::read().unwrap();
    for mount in mounts.iter().rev().filter(|m| is_others(&m.mount_point)) {
        // It may have gone with the one that it was on.
        let _ = unmount(mount.mount_point.as_path(), UnmountFlags::DETACH);
    }
}

/// The name of the test `name` in the file of the one that runs.
pub fn beside(name: &str) -> String {
    let this = std::thread::current().name().unwrap().to_owned();
    match this.rsplit_once("::") {
        Some((file, _)) => format!("{file}::{name}"),
        None => name.to_owned(),
    }
}

pub fn change(path: impl AsRef<Path>, flags: MountPropagationFlags) {
    mount_change(path.as_ref(), flags).unwrap();
}

pub fn mount_tmpfs(path: &Path) {
    fs::create_dir_all(path).unwrap();
    mount("test", path, "tmpfs", MountFlags::empty(), c"mode=0755").unwrap();
}

pub fn bind(from: &Path, to: &Path) {
    mount_bind(from, to).unwrap();
}

/// Fails with what to do where the machine lacks what a test assumes. `tests/vm` has all of it.
pub fn needs(path: &str, way_out: &str) {
    assert!(
        Path::new(path).exists(),
        "this test needs {path} on the machine: {way_out}"
    );
}

/// Makes an ext4 image and mounts it on `path`.
pub fn mount_ext4(image: &Path, path: &Path) {
    needs("/dev/loop-control", "load the module `loop`");
    fs::create_dir_all(path).unwrap();
    fs::File::create(image).unwrap().set_len(24 << 20).unwrap();
    tool("mkfs.ext4", &["-q", image.to_str().unwrap()]);
    tool(
        "mount",
        &[
            "-o",
            "loop",
            image.to_str().unwrap(),
            path.to_str().unwrap(),
        ],
    );
}

pub fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

/// Gives up the locks that this process holds below `dir`, as the end of a process does: for tests that
/// forget a view, as if its monitor had been killed.
pub fn lose_locks(dir: &Path) {
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        if fs::read_link(&path).is_ok_and(|to| to.starts_with(dir)) {
            let descriptor = path.file_name().unwrap().to_str().unwrap();
            nix::unistd::close(descriptor.parse::<i32>().unwrap()).unwrap();
        }
    }
}

/// The descriptors that this process has open.
pub fn descriptors() -> BTreeSet<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let number = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.unwrap().file_name();
        name.to_str().unwrap().parse().unwrap()
    };
    entries.map(number).collect()
}

/// Makes something and forgets it, with all that it has open, as if the process that made it had been killed.
pub fn make_and_lose<T>(make: impl FnOnce() -> T) {
    let before = descriptors();
    std::mem::forget(make());
    for descriptor in descriptors().difference(&before) {
        // One of them was that of the look itself.
        let _ = nix::unistd::close(*descriptor);
    }
}

/// A request with its own base below `dir`.
pub fn request(dir: &Path, id: &str, scope: OverlayScope) -> ViewRequest {
    let mut request = ViewRequest::new(ContainerId::new(id).unwrap(), "/".into());
    request.overlay.base = dir.join("base");
    request.overlay.scope = scope;
    request
}

/// What was written in the scope of `request`.
pub fn overlays(request: &ViewRequest) -> (Overlays, Scope) {
    (Overlays::new(&request.overlay), Scope::of(request).unwrap())
}

/// Makes the changes below `path` on the host.
pub fn apply(overlays: &Overlays, scope: &Scope, path: &Path) -> Result<Vec<Change>, Error> {
    overlays.apply_to_host(scope, &[path.to_owned()], ApplyMode::Apply, &mut |_| ())
}

/// The changes as `overlay diff` prints them.
pub fn shown(overlays: &Overlays, scope: &Scope) -> Vec<String> {
    let changes = overlays.diff(scope, &mut |_| ()).unwrap();
    changes.iter().map(ToString::to_string).collect()
}

/// Runs a shell script in `session`; returns what it wrote.
pub fn sh(session: &Session, script: &str) -> String {
    let output = attempt(session, script);
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

pub fn attempt(session: &Session, script: &str) -> Output {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    session.spawn(command).unwrap().wait_with_output().unwrap()
}

pub fn open(request: &ViewRequest) -> Session {
    Session::open(&SharedOverlay::new(), request).unwrap()
}

/// Everything that must not change of the files below `root`, without crossing mounts.
pub fn fingerprint(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    let device = fs::symlink_metadata(root).unwrap().dev();
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.dev() != device {
            continue;
        }
        let content = if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        found.push(format!(
            "{path:?} {} {:o} {} {} {}.{} {} {content:?}",
            metadata.ino(),
            metadata.mode(),
            metadata.uid(),
            metadata.nlink(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.rdev(),
        ));
        if metadata.is_dir() {
            todo.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    found.sort();
    found
}

/// The mounts of this process, without those of a base.
pub fn mount_table(base: &Path) -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let base = base.to_str().unwrap();
    text.lines()
        .filter(|line| !line.contains(base))
        .map(str::to_owned)
        .collect()
}
