//! What a scope costs: `cargo bench -p reaper-overlay` as root prints a table.
//!
//! Each figure is the median in ms from the request to a process in the view, and from there until
//! all is given back. Each row is measured in a mount namespace of its own with so many tmpfs mounts added to this
//! machine's: filesystems, each of which gets an overlay of its own, and volumes of pods, which are not in
//! a scope. Read-only root, the kubelet's masked and read-only paths, and volumes are what joining costs with
//! them. "host" is the same work in the host's own namespace.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use reaper_overlay::{FilesystemIsolation, HostFilesystem, Session, SharedOverlay, ViewRequest};
use reaper_spec::{ContainerId, Mount, OverlayScope};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

const ROUNDS: usize = 60;

fn median(times: Vec<(Duration, Duration)>) -> String {
    let (mut starts, mut ends): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    let middle = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    };
    format!("{:.2} + {:.2}", middle(&mut starts), middle(&mut ends))
}

fn request(base: &Path, id: &str, scope: OverlayScope) -> ViewRequest {
    let mut request = ViewRequest::new(ContainerId::new(id).expect("a plain id"), "/".into());
    request.overlay.base = base.to_owned();
    request.overlay.scope = scope;
    request
}

/// From the request to a process in the view, and from there to its end.
fn round(isolation: &dyn FilesystemIsolation, request: &ViewRequest) -> (Duration, Duration) {
    let start = Instant::now();
    let session = Session::open(isolation, request).expect("a view");
    let entered = Instant::now();
    session.close().expect("an end");
    (entered - start, entered.elapsed())
}

fn measure(filesystems: usize, volumes: usize, dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    let recursive = MountPropagationFlags::REC;
    mount_change("/", MountPropagationFlags::PRIVATE | recursive).expect("private mounts");
    mount_change("/", MountPropagationFlags::SHARED | recursive).expect("shared mounts");
    let tmpfs = |path: &Path| {
        std::fs::create_dir_all(path).expect("a directory");
        mount("bench", path, "tmpfs", MountFlags::empty(), c"").expect("a tmpfs");
    };
    tmpfs(dir);
    for number in 0..filesystems {
        tmpfs(&dir.join(format!("mounts/{number}")));
    }
    for number in 0..volumes {
        let pod = format!("kubelet/pods/{number}/volumes/kubernetes.io~secret/token");
        tmpfs(&dir.join(pod));
    }
    let base = dir.join("base");
    let overlay = SharedOverlay::new();
    let making: Vec<_> = (0..10)
        .map(|number| {
            let id = format!("make{number}");
            round(&overlay, &request(&base, &id, OverlayScope::Container))
        })
        .collect();
    let join = request(&base, "join", OverlayScope::Node);
    let keep =
        Session::open(&overlay, &request(&base, "keep", OverlayScope::Node)).expect("a view");
    let times = |isolation: &dyn FilesystemIsolation, request: &ViewRequest| {
        median((0..ROUNDS).map(|_| round(isolation, request)).collect())
    };
    let host = times(&HostFilesystem, &join);
    let joining = times(&overlay, &join);
    let mut restricted = join.clone();
    let paths = |paths: &[&str]| paths.iter().map(Into::into).collect();
    // What the kubelet gives a pod that is not privileged.
    restricted.restrictions.masked_paths = paths(&[
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
    ]);
    restricted.restrictions.read_only_paths = paths(&[
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]);
    let paths = times(&overlay, &restricted);
    restricted.restrictions = reaper_spec::FileRestrictions {
        read_only: true,
        ..Default::default()
    };
    let read_only = times(&overlay, &restricted);
    let mut with_volumes = join;
    for number in 0..4 {
        with_volumes.mounts.push(Mount {
            destination: format!("/volumes/{number}").into(),
            typ: Some("bind".to_owned()),
            source: Some("/usr".into()),
            options: vec!["bind".to_owned(), "ro".to_owned()],
        });
    }
    let four = times(&overlay, &with_volumes);
    drop(keep);
    let making = median(making);
    println!(
        "| {filesystems} | {volumes} | {host} | {joining} | {read_only} | {paths} | {four} | {making} |"
    );
}

fn main() {
    println!(
        "| filesystems | of pods | host | join | read-only root | the kubelet's 15 paths | 4 volumes | make |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (filesystems, volumes) in [(0, 0), (10, 90), (100, 0), (10, 490), (500, 0)] {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_owned();
        // A thread has mounts of its own, which vanish with it.
        std::thread::spawn(move || measure(filesystems, volumes, &path))
            .join()
            .expect("a measurement");
    }
}
