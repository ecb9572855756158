//! Volumes arrive, are seen by their container alone, and leave nothing behind.

mod common;

use std::{fs, mem::MaybeUninit, os::unix::net::UnixListener, path::Path};

use common::*;
use reaper_overlay::{Error, FilesystemIsolation, Session, SharedOverlay, ViewRequest, mountinfo};
use reaper_spec::{DnsMode, ImageMode, Mount, OverlayScope};
use rustix::{
    fs::inotify,
    mount::{MountPropagationFlags, UnmountFlags, unmount},
};

fn volume(request: &mut ViewRequest, from: impl AsRef<Path>, to: &str, options: &[&str]) {
    request.mounts.push(Mount {
        destination: to.into(),
        typ: Some("bind".to_owned()),
        source: Some(from.as_ref().to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    });
}

fn filled(dir: &Path, name: &str, content: &str) -> std::path::PathBuf {
    let path = dir.join(name);
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("content"), content).unwrap();
    path
}

#[test]
fn volume_is_visible_only_to_its_container() {
    isolated(|dir| {
        let secret = filled(dir, "secret", "a's");
        let mut request_a = request(dir, "a", OverlayScope::Node);
        volume(
            &mut request_a,
            &secret,
            "/var/run/secrets/token",
            &["rbind", "ro", "rprivate"],
        );
        let before = open(&request(dir, "before", OverlayScope::Node));
        let a = open(&request_a);
        let after = open(&request(dir, "after", OverlayScope::Node));
        let read = "cat /var/run/secrets/token/content";
        assert_eq!(sh(&a, read), "a's");
        assert_eq!(sh(&a, read), "a's", "an exec'd process sees the same");
        for other in [&before, &after] {
            assert!(!attempt(other, read).status.success());
            let table = sh(other, "cat /proc/self/mountinfo");
            let source = secret
                .to_str()
                .unwrap()
                .strip_prefix(dir.to_str().unwrap())
                .unwrap();
            assert!(!table.contains(&format!("{source} ")), "{table}");
        }
        let write = attempt(&a, "echo x >/var/run/secrets/token/new");
        assert!(String::from_utf8_lossy(&write.stderr).contains("Read-only"));
        // Swapping a link, as the kubelet updates tokens, is seen.
        fs::write(secret.join("content.new"), "swapped").unwrap();
        fs::rename(secret.join("content.new"), secret.join("content")).unwrap();
        assert_eq!(sh(&a, read), "swapped");
        a.close().unwrap();
        assert!(
            !Path::new("/run/secrets").exists(),
            "nothing is left on the node"
        );
    });
}

#[test]
fn files_sockets_devices_and_writes_reach_the_host() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        let _listener = UnixListener::bind(dir.join("socket")).unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &data, "/made/on/the/way", &["rbind"]);
        volume(
            &mut request,
            data.join("content"),
            "/etc/one-file",
            &["bind"],
        );
        volume(&mut request, dir.join("socket"), "/socket", &["bind"]);
        volume(&mut request, "/dev/null", "/null", &["bind"]);
        volume(
            &mut request,
            "/dev/null",
            "/made/on/the/way/nested",
            &["bind", "ro"],
        );
        let session = open(&request);
        sh(
            &session,
            "echo written >/made/on/the/way/new; test -S /socket; test -c /null",
        );
        assert_eq!(
            sh(
                &session,
                "cat /etc/one-file; echo; stat -c %F /made/on/the/way/nested"
            )
            .lines()
            .last(),
            Some("character special file")
        );
        assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "written\n");
        session.close().unwrap();
        let after = open(&request_of(dir));
        assert_eq!(
            sh(
                &after,
                "ls -d /made /etc/one-file /socket /null 2>/dev/null; true"
            ),
            ""
        );
    });
}

fn request_of(dir: &Path) -> ViewRequest {
    request(dir, "other", OverlayScope::Node)
}

#[test]
fn mount_point_is_guarded_until_its_last_user_leaves() {
    isolated(|dir| {
        let (one, two) = (filled(dir, "one", "1"), filled(dir, "two", "2"));
        let witness = open(&request(dir, "witness", OverlayScope::Node));
        let mut request_a = request(dir, "a", OverlayScope::Node);
        volume(&mut request_a, &one, "/shared/path", &["rbind"]);
        let mut request_b = request(dir, "b", OverlayScope::Node);
        volume(&mut request_b, &two, "/shared/path", &["rbind"]);
        let a = open(&request_a);
        let b = open(&request_b);
        for damage in [
            "rmdir /shared/path",
            "mv /shared/path /elsewhere",
            "mv -T /etc /shared/path",
        ] {
            assert!(!attempt(&witness, damage).status.success(), "{damage}");
        }
        a.close().unwrap();
        assert_eq!(sh(&b, "cat /shared/path/content"), "2");
        assert!(!attempt(&witness, "rmdir /shared/path").status.success());
        b.close().unwrap();
        assert!(
            !attempt(&witness, "test -e /shared").status.success(),
            "removed with the last"
        );
        sh(&witness, "mkdir -p /shared/path; rmdir /shared/path");
    });
}

#[test]
fn a_mount_point_on_the_node_that_two_bases_use_goes_with_the_last_of_both() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        mount_tmpfs(Path::new("/run/reaper-test-shared"));
        let with_base = |base: &str| {
            let mut request = request(dir, base, OverlayScope::Node);
            request.overlay.base = dir.join(base);
            volume(
                &mut request,
                &data,
                "/run/reaper-test-shared/made/deep",
                &["rbind"],
            );
            request
        };
        let made = Path::new("/run/reaper-test-shared/made");
        for [first, last] in [["a", "b"], ["b", "a"]] {
            let [a, b] = ["a", "b"].map(|base| (base, open(&with_base(base))));
            let (ends, stays) = if first == "a" { (a, b) } else { (b, a) };
            assert_eq!((ends.0, stays.0), (first, last));
            ends.1.close().unwrap();
            assert_eq!(
                sh(&stays.1, "cat /run/reaper-test-shared/made/deep/content"),
                "x"
            );
            stays.1.close().unwrap();
            assert!(!made.exists());
        }
        // What the node had before is not removed by either.
        fs::create_dir_all(made.join("deep")).unwrap();
        let [a, b] = ["a", "b"].map(|base| open(&with_base(base)));
        a.close().unwrap();
        b.close().unwrap();
        assert!(made.join("deep").is_dir());
        unmount("/run/reaper-test-shared", UnmountFlags::empty()).unwrap();
        fs::remove_dir("/run/reaper-test-shared").unwrap();
    });
}

#[test]
fn collect_cleans_up_after_a_killed_monitor() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(
            &mut request,
            &data,
            "/run/reaper-test-volume/deep",
            &["rbind"],
        );
        volume(&mut request, &data, "/in-the-overlay", &["rbind"]);
        // As if the monitor were gone: its memory is lost, its files are closed.
        let isolation = SharedOverlay::new();
        make_and_lose(|| isolation.prepare(&request).unwrap());
        assert!(Path::new("/run/reaper-test-volume/deep").exists());
        isolation.cleanup(&request).unwrap();
        isolation.cleanup(&request).unwrap();
        assert!(!Path::new("/run/reaper-test-volume").exists());
        let after = open(&request_of(dir));
        assert!(!attempt(&after, "test -e /in-the-overlay").status.success());
    });
}

#[test]
fn rro_makes_mounts_below_read_only_and_ro_does_not() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        mount_tmpfs(&data.join("below"));
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &data, "/top", &["rbind", "ro"]);
        volume(&mut request, &data, "/all", &["rbind", "rro"]);
        let session = open(&request);
        assert!(!attempt(&session, "touch /top/x").status.success());
        sh(&session, "touch /top/below/x");
        assert!(!attempt(&session, "touch /all/x").status.success());
        assert!(!attempt(&session, "touch /all/below/y").status.success());
    });
}

#[test]
fn combined_volume_options_all_apply() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        mount_tmpfs(&data.join("below"));
        let wanted = ["ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"];
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(
            &mut request,
            &data,
            "/data",
            &[&["rbind", "rnoexec"], &wanted[..]].concat(),
        );
        let session = open(&request);
        let table = mountinfo::parse(sh(&session, "cat /proc/self/mountinfo").as_bytes());
        let options = |path: &str| {
            let mut seen = mountinfo::visible(&table).into_iter();
            let mount = seen.find(|m| m.mount_point == Path::new(path));
            let mut options = mount.unwrap().options.clone();
            options.sort();
            options
        };
        let mut all = wanted.to_vec();
        all.sort_unstable();
        assert_eq!(options("/data"), all);
        assert_eq!(options("/data/below"), ["noexec", "relatime", "rw"]);
    });
}

#[test]
fn what_is_not_shared_on_the_host_is_shared_in_the_view_where_that_is_asked_for() {
    if kernel::lacks_trees() {
        return;
    }
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        bind(&data, &data);
        change(&data, MountPropagationFlags::PRIVATE);
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &data, "/both", &["rbind", "rshared"]);
        let mut own = request.mounts[0].clone();
        own.destination = "/own".into();
        own.typ = Some("tmpfs".to_owned());
        own.options = vec!["shared".to_owned()];
        request.mounts.push(own);
        let session = open(&request);
        for at in ["/both", "/own"] {
            let of = format!("findmnt --noheadings --output PROPAGATION --mountpoint {at}");
            // Below it lies what guards its mount point.
            let propagation = sh(&session, &of);
            assert_eq!(propagation.lines().last(), Some("shared"), "{at}");
        }
    });
}

#[test]
fn mounts_propagate_as_volume_propagation_says() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        bind(&data, &data);
        change(&data, MountPropagationFlags::SHARED);
        for name in ["later", "made"] {
            fs::create_dir(data.join(name)).unwrap();
        }
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &data, "/private", &["rbind"]);
        volume(&mut request, &data, "/slave", &["rbind", "rslave"]);
        let both = !kernel::lacks_trees();
        let mut shared = request.clone();
        volume(&mut shared, &data, "/both", &["rbind", "rshared"]);
        if both {
            request = shared;
        } else {
            let error = SharedOverlay::new().prepare(&shared).err().unwrap();
            assert!(error.to_string().contains("in /both: "), "{error}");
        }
        let session = open(&request);
        mount_tmpfs(&data.join("later"));
        let seen = |path: &str| {
            attempt(&session, &format!("mountpoint -q {path}"))
                .status
                .success()
        };
        assert!(!seen("/private/later"));
        assert!(seen("/slave/later"));
        if both {
            assert!(seen("/both/later"));
            sh(
                &session,
                "mount -t tmpfs t /both/made; touch /both/made/from-inside",
            );
            assert!(data.join("made/from-inside").exists());
        }
        // The host's unmount takes it away there as well.
        unmount(data.join("later"), UnmountFlags::empty()).unwrap();
        assert!(!seen("/slave/later"));
    });
}

#[test]
fn host_unmount_frees_device_while_other_containers_run() {
    isolated(|dir| {
        let kubelet = Path::new("/var/lib/kubelet/pods/u/volumes/v");
        mount_tmpfs(Path::new("/var/lib"));
        fs::create_dir_all(kubelet).unwrap();
        mount_ext4(&dir.join("image"), kubelet);
        fs::write(kubelet.join("content"), "x").unwrap();
        let mut request_a = request(dir, "a", OverlayScope::Node);
        volume(&mut request_a, kubelet, "/data", &["rbind", "rprivate"]);
        let a = open(&request_a);
        let b = open(&request(dir, "b", OverlayScope::Node));
        assert_eq!(sh(&a, "cat /data/content"), "x");
        assert_eq!(
            sh(&b, "ls -A /var/lib/kubelet/pods"),
            "",
            "another pod's volumes"
        );
        a.close().unwrap();
        unmount(kubelet, UnmountFlags::empty()).unwrap();
        assert_eq!(loop_devices(dir), 0, "the device is free");
        drop(b);
    });
}

/// How many loop devices show files below `dir`.
fn loop_devices(dir: &Path) -> usize {
    let below = dir.to_str().unwrap();
    let devices = fs::read_dir("/sys/block").unwrap().filter(|entry| {
        let backing = entry.as_ref().unwrap().path().join("loop/backing_file");
        fs::read_to_string(backing).is_ok_and(|file| file.contains(below))
    });
    devices.count()
}

#[test]
fn what_the_host_unmounts_is_named_while_a_member_keeps_it_and_free_afterwards() {
    isolated(|dir| {
        let disk = dir.join("disk");
        mount_ext4(&dir.join("image"), &disk);
        let [a, b, killed] = ["a", "b", "killed"].map(|id| request(dir, id, OverlayScope::Node));
        let members = [&a, &b].map(open);
        std::mem::forget(open(&killed));
        let (overlays, _) = overlays(&a);
        let unmounted = || overlays.list().unwrap().remove(0).unmounted;
        assert_eq!(unmounted(), []);
        unmount(&disk, UnmountFlags::empty()).unwrap();
        let [held] = unmounted().try_into().unwrap();
        assert_eq!(held.mount_point, disk);
        let device = format!("{}, device 7:{} (loop", disk.display(), held.device.1);
        assert!(held.to_string().starts_with(&device), "{held}");
        for member in members {
            assert_eq!(loop_devices(dir), 1);
            member.close().unwrap();
        }
        // What the third one has started may still run, until its end is known.
        assert_eq!((loop_devices(dir), unmounted().len()), (1, 1));
        lose_locks(&dir.join("base"));
        close_namespaces();
        SharedOverlay::new().cleanup(&killed).unwrap();
        assert_eq!((loop_devices(dir), unmounted()), (0, vec![]));
        assert!(!overlays.list().unwrap()[0].mounted);
        open(&a).close().unwrap();
    });
}

/// Closes the namespaces that a view which was forgotten holds.
fn close_namespaces() {
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        if fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("mnt:")) {
            let descriptor = path.file_name().unwrap().to_str().unwrap();
            nix::unistd::close(descriptor.parse::<i32>().unwrap()).unwrap();
        }
    }
}

#[test]
fn name_resolution_files_come_from_host_or_pod() {
    isolated(|dir| {
        needs("/etc/hosts", "any text will do");
        fs::write(dir.join("hosts"), "pod's").unwrap();
        fs::write(dir.join("resolv"), "pod's").unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, dir.join("hosts"), "/etc/hosts", &["rbind"]);
        volume(
            &mut request,
            dir.join("resolv"),
            "/etc/resolv.conf",
            &["rbind"],
        );
        let pod = open(&request);
        assert_eq!(sh(&pod, "cat /etc/hosts /etc/resolv.conf"), "pod'spod's");
        pod.close().unwrap();
        request.dns = DnsMode::Host;
        let host = open(&request);
        assert_ne!(sh(&host, "cat /etc/hosts"), "pod's");
    });
}

#[test]
fn default_system_mounts_of_engines_show_the_hosts() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        for (kind, to) in [
            ("proc", "/proc"),
            ("tmpfs", "/dev"),
            ("devpts", "/dev/pts"),
            ("tmpfs", "/dev/shm"),
            ("mqueue", "/dev/mqueue"),
            ("sysfs", "/sys"),
            ("tmpfs", "/run"),
            ("cgroup", "/sys/fs/cgroup"),
            ("tmpfs", "/scratch"),
        ] {
            request.mounts.push(Mount {
                destination: to.into(),
                typ: Some(kind.to_owned()),
                source: Some(kind.into()),
                options: vec!["nosuid".to_owned(), "noexec".to_owned()],
            });
        }
        let session = open(&request);
        assert_eq!(sh(&session, "stat -f -c %T /scratch"), "tmpfs");
        let numbers = |path: &str| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(path).unwrap().dev().to_string()
        };
        for path in ["/proc", "/dev", "/dev/shm", "/run"] {
            assert_eq!(
                sh(&session, &format!("stat -c %d {path}")),
                numbers(path),
                "{path}"
            );
        }
        session.close().unwrap();
        // A bind on /dev/shm is the pod's own and counts.
        request.mounts.clear();
        let shm = filled(dir, "shm", "pod's");
        volume(&mut request, &shm, "/dev/shm", &["rbind"]);
        assert_eq!(sh(&open(&request), "cat /dev/shm/content"), "pod's");
    });
}

#[test]
fn failed_mount_is_named_and_leaves_nothing() {
    isolated(|dir| {
        let refused = |request: &ViewRequest| {
            Session::open(&SharedOverlay::new(), request)
                .err()
                .unwrap()
                .to_string()
        };
        let data = filled(dir, "data", "x");
        let mut one = request(dir, "a", OverlayScope::Node);
        volume(&mut one, &data, "/made/first", &["rbind"]);
        volume(&mut one, dir.join("missing"), "/made/second", &["rbind"]);
        assert!(refused(&one).contains("missing"), "{}", refused(&one));
        one.mounts.pop();
        volume(&mut one, &data, "/etc/passwd", &["rbind"]);
        assert!(
            refused(&one).contains("/etc/passwd needs a directory"),
            "{}",
            refused(&one)
        );
        one.mounts.pop();
        volume(&mut one, &data, "/proc/self", &["rbind"]);
        assert!(refused(&one).contains("/proc/self"));
        let clean = open(&request_of(dir));
        assert!(!attempt(&clean, "test -e /made").status.success());
    });
}

#[test]
fn image_is_mounted_below_the_host_or_at_a_path() {
    isolated(|dir| {
        needs("/etc/hosts", "any text will do");
        let image = dir.join("image");
        fs::create_dir_all(image.join("opt/tool")).unwrap();
        fs::write(image.join("opt/tool/run"), "from the image").unwrap();
        fs::create_dir_all(image.join("etc")).unwrap();
        fs::write(image.join("etc/hosts"), "the image's").unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        request.rootfs = Some(image);
        request.image = ImageMode::Lower;
        let beneath = open(&request);
        assert_eq!(sh(&beneath, "cat /opt/tool/run"), "from the image");
        assert_ne!(sh(&beneath, "cat /etc/hosts"), "the image's");
        beneath.close().unwrap();
        request.image = ImageMode::MountAt;
        let at = open(&request);
        assert_eq!(
            sh(&at, "cat $REAPER_IMAGE_ROOT/opt/tool/run"),
            "from the image"
        );
        assert!(!attempt(&at, "touch $REAPER_IMAGE_ROOT/x").status.success());
        at.close().unwrap();
        request.image = ImageMode::MountAt;
        request.rootfs = None;
        let error = SharedOverlay::new().prepare(&request).err().unwrap();
        assert!(matches!(error, Error::ImageMissing));
    });
}

#[test]
fn a_missing_working_directory_is_made_in_the_overlay() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        request.cwd = "/work/of/the/image".into();
        assert_eq!(sh(&open(&request), "pwd"), "/work/of/the/image");
        assert!(!Path::new("/work/of").exists());
    });
}

#[test]
fn failed_prepare_leaves_no_scope() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Container);
        request.image = ImageMode::Lower;
        request.rootfs = Some(dir.join("no-image"));
        let error = SharedOverlay::new().prepare(&request).err().unwrap();
        assert!(
            error.to_string().contains("mount the overlay over /"),
            "{error}"
        );
        let overlays = reaper_overlay::Overlays::new(&request.overlay);
        assert!(overlays.list().unwrap().is_empty());
    });
}

/// Containers of scopes of their own, with a volume below a directory of the node that is hidden if
/// it is there.
fn below_a_mask(dir: &Path, id: &str, hidden: &Path) -> ViewRequest {
    let mut request = request(dir, id, OverlayScope::Container);
    request.overlay.host_paths = vec![hidden.parent().unwrap().to_owned()];
    request.overlay.masks.add = vec![hidden.to_str().unwrap().to_owned()];
    let to = hidden.join("kubernetes.io/serviceaccount");
    let data = filled(dir, id, id);
    volume(&mut request, &data, to.to_str().unwrap(), &["bind", "ro"]);
    request
}

#[test]
fn mount_points_below_a_mask_are_not_left_on_the_node_in_whatever_order_containers_end() {
    isolated(|dir| {
        let hidden = dir.join("shown/secrets");
        fs::create_dir(dir.join("shown")).unwrap();
        let of = |id| below_a_mask(dir, id, &hidden);
        for first_ends_first in [true, false] {
            let (a, b) = (open(&of("a")), open(&of("b")));
            let read = format!(
                "cat {}/kubernetes.io/serviceaccount/content",
                hidden.display()
            );
            let sessions = if first_ends_first { [a, b] } else { [b, a] };
            let [first, last] = sessions;
            first.close().unwrap();
            SharedOverlay::new()
                .remove(&of(if first_ends_first { "a" } else { "b" }))
                .unwrap();
            let seen = sh(&last, &read);
            assert_eq!(seen, if first_ends_first { "b" } else { "a" });
            last.close().unwrap();
            assert!(!hidden.exists(), "nothing is left on the node");
            for id in ["a", "b"] {
                SharedOverlay::new().remove(&of(id)).unwrap();
            }
        }
    });
}

#[test]
fn mount_points_in_a_cover_are_not_those_of_the_node() {
    isolated(|dir| {
        let hidden = dir.join("shown/secrets");
        // It is the node's own, and hidden in the one scope, and shown in the other.
        fs::create_dir_all(&hidden).unwrap();
        let covered = below_a_mask(dir, "covered", &hidden);
        let mut shown = below_a_mask(dir, "shown-to", &hidden);
        shown.overlay.masks.add.clear();
        let (covered_session, shown_session) = (open(&covered), open(&shown));
        shown_session.close().unwrap();
        let left = || fs::read_dir(&hidden).unwrap().count();
        assert_eq!(left(), 0, "the other one's lies in its cover");
        covered_session.close().unwrap();
        assert_eq!(left(), 0);
        for request in [covered, shown] {
            SharedOverlay::new().remove(&request).unwrap();
        }
    });
}

#[test]
fn a_volume_may_lie_in_a_volume_in_a_volume() {
    isolated(|dir| {
        let mut request = request(dir, "a", OverlayScope::Node);
        for (from, to) in [
            ("n", "/n"),
            ("inner", "/n/inner"),
            ("deep", "/n/inner/deep"),
        ] {
            let source = filled(dir, from, from);
            volume(&mut request, source, to, &["bind", "rw"]);
        }
        let file = dir.join("deep/content");
        volume(&mut request, file, "/n/inner/deep/more/file", &["bind"]);
        for _ in 0..2 {
            let session = open(&request);
            let read =
                "cat /n/content /n/inner/content /n/inner/deep/content /n/inner/deep/more/file";
            assert_eq!(sh(&session, read), "ninnerdeepdeep");
            session.close().unwrap();
            for left in ["n", "inner", "deep"] {
                assert_eq!(fs::read_dir(dir.join(left)).unwrap().count(), 1, "{left}");
            }
        }
    });
}

#[test]
fn volumes_that_share_missing_directories_are_made_and_removed_together() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        let mut request = request(dir, "a", OverlayScope::Node);
        for number in 0..300 {
            let to = format!("/many/{}/{number}", number % 7);
            volume(&mut request, &data, &to, &["bind"]);
        }
        let session = open(&request);
        assert_eq!(sh(&session, "ls -d /many/*/*/content | wc -l"), "300");
        assert!(!attempt(&session, "rmdir /many/1/1").status.success());
        session.close().unwrap();
        // A file and a directory in one place are refused as before, and leave nothing.
        let mut wrong = request_of(dir);
        volume(&mut wrong, &data, "/wrong/dir/below", &["bind"]);
        volume(&mut wrong, data.join("content"), "/wrong/dir", &["bind"]);
        let refused = SharedOverlay::new().prepare(&wrong).err().unwrap();
        assert!(matches!(refused, Error::MountKind { .. }), "{refused}");
        let after = open(&request_of(dir));
        assert_eq!(sh(&after, "ls -d /many /wrong 2>/dev/null; true"), "");
    });
}

#[test]
fn the_nodes_sys_and_proc_may_be_asked_for_where_they_are() {
    isolated(|dir| {
        let of = |path: &str, options: &[&str]| {
            let mut request = request(dir, "a", OverlayScope::Node);
            volume(&mut request, path, path, options);
            request
        };
        for (path, file) in [
            ("/sys", "/sys"),
            ("/sys/kernel", "/sys/kernel"),
            ("/proc", "/proc/self/comm"),
            ("/proc/sys", "/proc/sys/kernel/hostname"),
        ] {
            let writable = open(&of(path, &["rbind", "rprivate", "rw"]));
            sh(&writable, &format!("test -w {file}"));
            writable.close().unwrap();
            let read_only = open(&of(path, &["rbind", "rprivate", "ro"]));
            assert!(
                !attempt(&read_only, &format!("test -w {file}"))
                    .status
                    .success()
            );
            sh(
                &read_only,
                "test -d /sys/fs/cgroup; test -e /proc/self/stat",
            );
            read_only.close().unwrap();
        }
        for (from, to) in [("/sys", "/proc"), ("/etc", "/proc/sys"), ("/", "/")] {
            let mut request = request(dir, "a", OverlayScope::Node);
            volume(&mut request, from, to, &["rbind", "ro"]);
            let refused = SharedOverlay::new().prepare(&request).err().unwrap();
            assert!(
                matches!(refused, Error::MountDestination { .. }),
                "{refused}"
            );
        }
    });
}

#[test]
fn a_mount_of_the_users_is_there_also_where_engines_mount() {
    isolated(|dir| {
        let data = filled(dir, "data", "own");
        let mut request = request(dir, "a", OverlayScope::Node);
        for to in ["/sys/fs/cgroup", "/run", "/dev/shm"] {
            volume(&mut request, &data, to, &["rbind", "ro"]);
        }
        volume(
            &mut request,
            data.join("content"),
            "/proc/meminfo",
            &["bind"],
        );
        request.mounts.push(Mount {
            destination: "/other-proc".into(),
            typ: Some("proc".to_owned()),
            source: Some("proc".into()),
            options: Vec::new(),
        });
        let session = open(&request);
        for file in [
            "/sys/fs/cgroup/content",
            "/run/content",
            "/dev/shm/content",
            "/proc/meminfo",
        ] {
            assert_eq!(sh(&session, &format!("cat {file}")), "own", "{file}");
        }
        sh(&session, "test -d /other-proc/self");
        session.close().unwrap();
        assert!(
            fs::read_to_string("/proc/meminfo")
                .unwrap()
                .contains("MemTotal")
        );
    });
}

#[test]
fn what_has_no_meaning_as_a_mount_is_refused_by_name() {
    isolated(|dir| {
        for (kind, to, option, said) in [
            ("cgroup", "/cgroups", "ro", "cgroups are on /sys/fs/cgroup"),
            ("tmpfs", "/scratch", "idmap", "\"idmap\""),
            ("tmpfs", "/proc/acpi", "ro", "/proc/acpi is no place"),
            ("no-such-type", "/place", "ro", "/place"),
        ] {
            let mut request = request(dir, "a", OverlayScope::Node);
            request.mounts.push(Mount {
                destination: to.into(),
                typ: Some(kind.to_owned()),
                source: Some(kind.into()),
                options: vec![option.to_owned()],
            });
            let refused = Session::open(&SharedOverlay::new(), &request)
                .err()
                .unwrap();
            assert!(refused.to_string().contains(said), "{refused}");
        }
        // By its name it would be allowed.
        std::os::unix::fs::symlink("/proc/sys", dir.join("link")).unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        let data = filled(dir, "data", "own");
        let to = dir.join("link").display().to_string();
        volume(&mut request, &data, &to, &["bind"]);
        let refused = SharedOverlay::new().prepare(&request).err().unwrap();
        assert!(
            refused.to_string().contains("/proc/sys is no place"),
            "{refused}"
        );
    });
}

#[test]
fn a_destination_leads_through_the_links_of_another_volume() {
    isolated(|dir| {
        let outer = filled(dir, "outer", "outer");
        fs::create_dir_all(outer.join("real")).unwrap();
        std::os::unix::fs::symlink("real", outer.join("inner")).unwrap();
        std::os::unix::fs::symlink("/outside", outer.join("out")).unwrap();
        let data = filled(dir, "data", "own");
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(&mut request, &outer, "/volume", &["bind"]);
        volume(&mut request, &data, "/volume/inner/deep", &["bind"]);
        volume(&mut request, &data, "/volume/out/deep", &["bind"]);
        let session = open(&request);
        assert_eq!(sh(&session, "cat /volume/real/deep/content"), "own");
        assert_eq!(sh(&session, "cat /outside/deep/content"), "own");
        session.close().unwrap();
        assert_eq!(fs::read_dir(outer.join("real")).unwrap().count(), 0);
        let after = open(&request_of(dir));
        assert!(!attempt(&after, "test -e /outside").status.success());
    });
}

#[test]
fn a_tmpfs_can_begin_as_a_copy_of_what_it_is_mounted_on() {
    isolated(|dir| {
        let place = dir.join("place");
        fs::create_dir_all(place.join("sub/below")).unwrap();
        mount_tmpfs(&place.join("mounted"));
        fs::write(place.join("mounted/other"), "").unwrap();
        fs::write(place.join("sub/file"), "text").unwrap();
        std::os::unix::fs::symlink("sub/file", place.join("link")).unwrap();
        tool(
            "chown",
            &["33:34", place.join("sub/file").to_str().unwrap()],
        );
        tool("touch", &["-d", "2001-01-01", place.to_str().unwrap()]);
        let mut request = request(dir, "a", OverlayScope::Node);
        for (to, options) in [
            (place.clone(), &["tmpcopyup", "ro", "size=1m"][..]),
            ("/new".into(), &["tmpcopyup", "mode=0700"]),
        ] {
            request.mounts.push(Mount {
                destination: to,
                typ: Some("tmpfs".to_owned()),
                source: Some("tmpfs".into()),
                options: options.iter().map(|&option| option.to_owned()).collect(),
            });
        }
        let session = open(&request);
        let place = place.display();
        let script = format!(
            "cd {place}; cat link; stat -c %u:%g sub/file; stat -c %Y .; ls -A sub/below mounted;
             stat -f -c %T ."
        );
        let said = sh(&session, &script);
        let expected = "text33:34\n978307200\nmounted:\n\nsub/below:\ntmpfs";
        assert_eq!(said, expected);
        assert!(
            !attempt(&session, &format!("touch {place}/x"))
                .status
                .success()
        );
        session.close().unwrap();
    });
}

#[test]
fn a_tmpfs_can_begin_as_a_copy_of_a_tree_deeper_than_a_path_is_long() {
    isolated(|dir| {
        let place = dir.join("place");
        fs::create_dir(&place).unwrap();
        let script = "cd \"$0\"; i=0; n=$(printf %0100d 0); while [ $i -lt 60 ]; do mkdir $n && cd -P $n; i=$((i+1)); done;
             echo deep >file; chmod 600 file";
        tool("sh", &["-c", script, place.to_str().unwrap()]);
        let mut request = request(dir, "a", OverlayScope::Node);
        request.mounts.push(Mount {
            destination: place.clone(),
            typ: Some("tmpfs".to_owned()),
            source: Some("tmpfs".into()),
            options: vec!["tmpcopyup".to_owned()],
        });
        let session = open(&request);
        let script = format!(
            "cd {}; stat -f -c %T .; while cd -P 0* 2>/dev/null; do :; done; cat file; stat -c %a file",
            place.display()
        );
        assert_eq!(sh(&session, &script), "tmpfs\ndeep\n600");
        session.close().unwrap();
    });
}

/// How often the registry of mount points is replaced while `act` runs.
fn registry_writes(records: &Path, act: impl FnOnce()) -> usize {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, records, inotify::WatchFlags::MOVED_TO).unwrap();
    act();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&watch, &mut buffer);
    let mut count = 0;
    while let Ok(event) = events.next() {
        let name = event.file_name().map(|name| name.to_bytes());
        count += usize::from(name == Some(b"mount-points.json"));
    }
    count
}

#[test]
fn the_registry_of_mount_points_is_written_as_often_for_many_volumes_as_for_two() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        // The base is there from now on.
        let member = open(&request_of(dir));
        let records = dir.join("base/live/records");
        let writes = |volumes: usize| {
            let mut request = request(dir, "a", OverlayScope::Node);
            for number in 0..volumes {
                volume(&mut request, &data, &format!("/many/{number}"), &["bind"]);
            }
            registry_writes(&records, || open(&request).close().unwrap())
        };
        let (few, many) = (writes(2), writes(60));
        assert!(few > 0);
        assert_eq!(few, many);
        member.close().unwrap();
    });
}

#[test]
fn the_registry_of_mount_points_is_written_as_often_for_many_volumes_in_a_volume_as_for_two() {
    isolated(|dir| {
        let data = filled(dir, "data", "x");
        let member = open(&request_of(dir));
        let records = dir.join("base/live/records");
        let writes = |name: &str, volumes: usize| {
            let outer = filled(dir, name, "x");
            let mut request = request(dir, "a", OverlayScope::Node);
            volume(&mut request, &outer, "/outer", &["bind"]);
            for number in 0..volumes {
                let to = format!("/outer/on/the/way/{number}");
                volume(&mut request, &data, &to, &["bind"]);
            }
            let written = registry_writes(&records, || {
                let session = open(&request);
                assert!(outer.join("on/the/way/1").is_dir());
                session.close().unwrap();
            });
            assert!(!outer.join("on").exists());
            written
        };
        let (few, many) = (writes("few", 2), writes("many", 60));
        assert!(few > 0);
        assert_eq!(few, many);
        member.close().unwrap();
    });
}

#[test]
fn a_name_file_stays_when_the_hosts_resolver_replaces_its_own() {
    isolated(|dir| {
        let place = format!("/run/reaper-test-{}", std::process::id());
        fs::create_dir(&place).unwrap();
        let own = format!("{place}/resolv.conf");
        fs::write(&own, "host's").unwrap();
        let first = open(&request_of(dir));
        sh(
            &first,
            &format!("rm -f /etc/resolv.conf; ln -s {own} /etc/resolv.conf"),
        );
        fs::write(dir.join("resolv"), "pod's").unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        volume(
            &mut request,
            dir.join("resolv"),
            "/etc/resolv.conf",
            &["bind", "ro"],
        );
        let pod = open(&request);
        assert_eq!(sh(&pod, "cat /etc/resolv.conf"), "pod's");
        assert!(!attempt(&pod, "echo x >/etc/resolv.conf").status.success());
        fs::write(format!("{own}.new"), "changed").unwrap();
        fs::rename(format!("{own}.new"), &own).unwrap();
        assert_eq!(sh(&first, "cat /etc/resolv.conf"), "changed");
        if !kernel::lacks_trees() {
            assert_eq!(sh(&pod, "cat /etc/resolv.conf"), "pod's");
            // A member that replaced the link would take the mount away.
            for replace in [
                "rm -f /etc/resolv.conf",
                "mv -T /etc/resolv.conf /etc/moved",
                "ln -s elsewhere /etc/other; mv -T /etc/other /etc/resolv.conf",
            ] {
                let refused = attempt(&first, replace);
                let said = String::from_utf8_lossy(&refused.stderr);
                assert!(said.contains("busy"), "{replace}: {said}");
                assert_eq!(sh(&pod, "cat /etc/resolv.conf"), "pod's");
            }
            assert_eq!(sh(&first, "readlink /etc/resolv.conf"), own);
            assert_eq!(sh(&first, "cat /etc/resolv.conf"), "changed");
        }
        pod.close().unwrap();
        sh(&first, &format!("ln -sfn {own} /etc/resolv.conf"));
        fs::remove_file(&own).unwrap();
        let pod = open(&request);
        assert_eq!(
            sh(&pod, "cat /etc/resolv.conf"),
            "pod's",
            "over a link that leads nowhere"
        );
        pod.close().unwrap();
        assert!(!Path::new(&own).exists());
        first.close().unwrap();
        fs::remove_dir(&place).unwrap();
    });
}
