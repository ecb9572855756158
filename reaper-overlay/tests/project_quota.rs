//! A limit for each scope where the base is on a disk: who fills one is refused more, and no one else is.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::*;
use reaper_overlay::{Error, FilesystemIsolation, Overlays, Session, SharedOverlay, ViewRequest};
use reaper_spec::OverlayScope;
use rustix::fs::statvfs;

const LIMIT: u64 = 8 << 20;

/// Filesystems that can enforce quotas of projects, how they are made, and by which option they are mounted to
/// count the use alone.
const FILESYSTEMS: [(&str, &[&str], &str); 2] = [
    ("ext4", &["mkfs.ext4", "-q", "-O", "quota,project"], "loop"),
    ("xfs", &["mkfs.xfs", "-q"], "loop,pqnoenforce"),
];

/// A disk of its own, with quotas of projects enforced.
struct Disk {
    filesystem: &'static str,
    at: PathBuf,
}

impl Disk {
    fn request(&self, id: &str, scope: OverlayScope) -> ViewRequest {
        let mut request = request(&self.at, id, scope);
        request.overlay.size_per_scope = Some(LIMIT);
        request
    }

    /// Gives a directory a project that it hands on.
    fn hand_on(&self, project: u32, dir: &Path) {
        let (number, path) = (project.to_string(), dir.to_str().unwrap());
        match self.filesystem {
            "xfs" => tool(
                "xfs_io",
                &["-c", &format!("chproj {number}"), "-c", "chattr +P", path],
            ),
            _ => tool("chattr", &["-p", &number, "+P", path]),
        }
    }

    /// The limit of what is in `project`, as statfs(2) has it for a directory that hands it on.
    fn limit_of_project(&self, project: u32) -> Option<u64> {
        let probe = self.at.join("probe");
        fs::create_dir(&probe).unwrap();
        self.hand_on(project, &probe);
        let total = |path: &Path| {
            let stat = statvfs(path).unwrap();
            stat.f_blocks * stat.f_frsize
        };
        let (own, disk) = (total(&probe), total(&self.at));
        fs::remove_dir(&probe).unwrap();
        (own < disk).then_some(own)
    }
}

/// Runs `test` on a disk of each kind. Where the machine has no such quotas, as only the laboratory is known to
/// have, they are refused.
fn on_each_disk(test: impl Fn(&Disk)) {
    isolated(|dir| {
        for (filesystem, make, _) in FILESYSTEMS {
            if let Some(at) = mount_disk(dir, filesystem, make, "loop,prjquota") {
                test(&Disk { filesystem, at });
            }
        }
        let plain = dir.join("plain");
        mount_ext4(&dir.join("plain.image"), &plain);
        let said = refusal(&request(&plain, "refused", OverlayScope::Node));
        assert!(said.contains("prjquota"), "{said}");
    });
}

/// A new disk, mounted with `options`; `None` where the kernel has no such quotas, or no tool makes it.
fn mount_disk(dir: &Path, filesystem: &str, make: &[&str], options: &str) -> Option<PathBuf> {
    needs("/dev/loop-control", "load the module `loop`");
    let at = dir.join(filesystem);
    let image = dir.join(format!("{filesystem}.image"));
    // The smallest that mkfs.xfs makes.
    fs::File::create(&image)
        .unwrap()
        .set_len(320 << 20)
        .unwrap();
    fs::create_dir(&at).unwrap();
    let succeeds = |command: &mut Command| command.output().is_ok_and(|o| o.status.success());
    let is_mounted = succeeds(Command::new(make[0]).args(&make[1..]).arg(&image))
        && succeeds(
            Command::new("mount")
                .args(["-o", options])
                .args([&image, &at]),
        );
    assert!(
        is_mounted || !Path::new("/run/lab/options").exists(),
        "no quotas of projects on {filesystem}: run tests/provision vm"
    );
    is_mounted.then_some(at)
}

/// Why a container of `request` is refused, before anything is made, if each scope is to have a limit.
fn refusal(request: &ViewRequest) -> String {
    let mut request = request.clone();
    request.overlay.size_per_scope = Some(LIMIT);
    let refused = SharedOverlay::new().prepare(&request).map(drop);
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::ScopeLimit { .. }), "{error}");
    assert!(!request.overlay.base.exists());
    error.to_string()
}

/// Writes until nothing fits any more.
fn fill(session: &Session) {
    let output = attempt(session, "LC_ALL=C cat /dev/zero >/root/fill");
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let full = ["No space left on device", "Disk quota exceeded"];
    assert!(full.iter().any(|text| said.contains(text)), "{said}");
}

fn limit_of(request: &ViewRequest) -> Option<u64> {
    let (overlays, scope) = overlays(request);
    overlays.inspect(&scope).unwrap().unwrap().limit
}

/// Where the layers of the scope of `request` are.
fn layers_of(request: &ViewRequest) -> PathBuf {
    let (_, scope) = overlays(request);
    request.overlay.base.join("scopes").join(scope.as_str())
}

/// The project of a file or directory.
fn project_of(path: &Path) -> u32 {
    let output = Command::new("lsattr")
        .arg("-pd")
        .arg(path)
        .output()
        .unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn who_fills_a_scope_takes_no_space_from_others() {
    on_each_disk(|disk| {
        let request = disk.request("full", OverlayScope::Container);
        let full = open(&request);
        let other = open(&disk.request("other", OverlayScope::Container));
        // What overlay does in its work directory and renames from there.
        sh(
            &full,
            "cd /root && cp /etc/passwd a && ln a b && mv b c && mkdir -p d/e && mv d f && rm -r f && rm a c &&
             echo more >>/etc/hosts && mv /etc/hosts /etc/hosts.new && rm /etc/hosts.new && chmod 700 /etc",
        );
        let total = sh(&full, "stat -f -c '%b %S' /root");
        let total: Vec<u64> = total.split(' ').map(|n| n.parse().unwrap()).collect();
        assert_eq!(total[0] * total[1], LIMIT, "what df shows");
        fill(&full);
        let (overlays, scope) = overlays(&request);
        let used = overlays.disk_usage(&scope, &mut |_| ()).unwrap().bytes;
        assert!(used <= LIMIT && used > LIMIT / 2, "{used}");
        assert_eq!(limit_of(&request), Some(LIMIT));
        assert!(
            !attempt(&full, "head -c 100000 /dev/zero >/root/more")
                .status
                .success()
        );

        sh(&other, "head -c 4000000 /dev/zero >/root/more");
        // A base beside, which knows nothing of the first one.
        let mut beside = disk.request("beside", OverlayScope::Container);
        beside.overlay.base = disk.at.join("beside");
        let third = open(&beside);
        sh(&third, "head -c 4000000 /dev/zero >/root/more");
        assert_ne!(
            project_of(&layers_of(&request)),
            project_of(&layers_of(&beside))
        );
        // Reaper's own table takes nothing of the quota, and a full one does not keep it from being written.
        assert_eq!(project_of(&layers_of(&request).join("layers.json")), 0);
        for session in [full, other, third] {
            session.close().unwrap();
        }
        let project = project_of(&layers_of(&request));
        assert_eq!(disk.limit_of_project(project), Some(LIMIT));
        for config in [&request.overlay, &beside.overlay] {
            let overlays = Overlays::new(config);
            for info in overlays.list().unwrap() {
                overlays.remove(&info.scope).unwrap();
            }
            for left in ["scopes", "trash", "live/scopes", "live/records/scopes"] {
                let left: Vec<_> = fs::read_dir(config.base.join(left)).unwrap().collect();
                assert!(left.is_empty(), "{left:?}");
            }
        }
        assert_eq!(disk.limit_of_project(project), None);
    });
}

#[test]
fn a_full_scope_is_mounted_afresh_and_can_be_emptied() {
    on_each_disk(|disk| {
        let of = |id| disk.request(id, OverlayScope::Node);
        let first = open(&of("first"));
        let second = open(&of("second"));
        fill(&first);
        assert!(
            !attempt(&second, "head -c 100000 /dev/zero >/root/more")
                .status
                .success()
        );
        for session in [first, second] {
            session.close().unwrap();
        }
        let third = open(&of("third"));
        assert_eq!(limit_of(&of("third")), Some(LIMIT));
        assert!(
            !attempt(&third, "head -c 1000000 /dev/zero >/root/more")
                .status
                .success()
        );
        sh(
            &third,
            "rm /root/fill; head -c 1000000 /dev/zero >/root/more",
        );
        let (overlays, scope) = overlays(&of("third"));
        assert_eq!(shown(&overlays, &scope).len(), 1);
        third.close().unwrap();
    });
}

#[test]
fn a_changed_limit_is_that_of_the_next_mount() {
    on_each_disk(|disk| {
        let mut request = disk.request("member", OverlayScope::Node);
        let warnings = |request: &ViewRequest| {
            let mut view = SharedOverlay::new().prepare(request).unwrap();
            let warnings = view.warnings().join("\n");
            view.release().unwrap();
            warnings
        };
        for limit in [
            Some(LIMIT),
            Some(2 * LIMIT),
            Some(LIMIT / 2),
            None,
            Some(LIMIT),
        ] {
            request.overlay.size_per_scope = limit;
            assert!(!warnings(&request).contains("has none"));
            assert_eq!(limit_of(&request), limit);
        }
        // Who joins one that is mounted changes nothing.
        let member = open(&request);
        let mut other = disk.request("other", OverlayScope::Node);
        other.overlay.size_per_scope = Some(2 * LIMIT);
        warnings(&other);
        assert_eq!(limit_of(&request), Some(LIMIT));
        member.close().unwrap();

        let (overlays, scope) = overlays(&request);
        overlays.reset(&scope).unwrap();
        request.overlay.size_per_scope = None;
        warnings(&request);
        request.overlay.size_per_scope = Some(LIMIT);
        assert!(warnings(&request).contains("has none"));
        assert_eq!(limit_of(&request), None);
        overlays.reset(&scope).unwrap();
        assert!(!warnings(&request).contains("has none"));
        assert_eq!(limit_of(&request), Some(LIMIT));
    });
}

#[test]
fn a_removal_that_was_cut_short_leaves_no_limit() {
    on_each_disk(|disk| {
        let request = disk.request("member", OverlayScope::Node);
        let session = open(&request);
        sh(&session, "echo kept >/root/kept");
        session.close().unwrap();
        let project = project_of(&layers_of(&request));
        assert_eq!(disk.limit_of_project(project), Some(LIMIT));
        // It cannot be removed, as if the process had been killed before.
        let kept = fs::read_dir(layers_of(&request))
            .unwrap()
            .map(|entry| entry.unwrap().path().join("upper/root/kept"))
            .find(|kept| kept.exists())
            .unwrap();
        tool("chattr", &["+i", kept.to_str().unwrap()]);
        let (overlays, scope) = overlays(&request);
        overlays.remove(&scope).unwrap_err();
        assert_eq!(disk.limit_of_project(project), None);
        assert!(overlays.left_over().unwrap().files > 0);

        let trash = request.overlay.base.join("trash");
        let item = fs::read_dir(&trash)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let kept = item.join(kept.strip_prefix(layers_of(&request)).unwrap());
        tool("chattr", &["-i", kept.to_str().unwrap()]);
        overlays.clear().unwrap();
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
    });
}

#[test]
fn what_a_killed_maker_has_begun_is_taken_up() {
    on_each_disk(|disk| {
        open(&disk.request("first", OverlayScope::Container))
            .close()
            .unwrap();
        let request = disk.request("second", OverlayScope::Container);
        let layers = layers_of(&request);
        fs::create_dir(&layers).unwrap();
        let project = 0x5245_1234;
        tool(
            "chattr",
            &["-p", &project.to_string(), layers.to_str().unwrap()],
        );
        let session = open(&request);
        assert_eq!(project_of(&layers), project);
        assert_eq!(limit_of(&request), Some(LIMIT));
        fill(&session);
        session.close().unwrap();
    });
}

#[test]
fn a_quota_that_nothing_enforces_is_refused() {
    isolated(|dir| {
        for (filesystem, make, counted) in FILESYSTEMS {
            if let Some(at) = mount_disk(dir, filesystem, make, counted) {
                let said = refusal(&request(&at, "refused", OverlayScope::Node));
                assert!(said.contains("enforces no project quotas"), "{said}");
            }
        }
    });
}

#[test]
fn a_base_in_a_project_of_another_is_refused() {
    on_each_disk(|disk| {
        let around = disk.at.join("around");
        fs::create_dir(&around).unwrap();
        disk.hand_on(777, &around);
        let said = refusal(&request(&around, "refused", OverlayScope::Node));
        assert!(said.contains("in a project itself"), "{said}");
    });
}
