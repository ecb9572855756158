//! The root of an image that the view mounts itself.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::*;
use reaper_overlay::{Configured, RootfsMount, Session, ViewRequest};
use reaper_spec::{ImageMode, OverlayScope};

const TOOL: &str = "/reaper-test-image/tool";

/// A container whose image is an overlay of two layers, as containerd describes it.
fn of_image(dir: &Path, id: &str, mode: ImageMode) -> ViewRequest {
    let layer = |name: &str| dir.join("layers").join(name);
    for name in ["a", "b", "upper", "work"] {
        fs::create_dir_all(layer(name)).unwrap();
    }
    fs::create_dir_all(dir.join("rootfs")).unwrap();
    fs::create_dir_all(layer("a").join("reaper-test-image")).unwrap();
    fs::write(
        layer("a").join("reaper-test-image/tool"),
        "#!/bin/sh\necho from the image\n",
    )
    .unwrap();
    tool(
        "chmod",
        &["+x", layer("a").join(&TOOL[1..]).to_str().unwrap()],
    );
    fs::create_dir_all(layer("b").join("etc")).unwrap();
    fs::write(layer("b").join("etc/hostname"), "the image's\n").unwrap();
    let mut request = request(dir, id, OverlayScope::Node);
    request.image = mode;
    request.rootfs = Some(dir.join("rootfs"));
    let layers = dir.join("layers");
    let layers = layers.display();
    request.rootfs_mounts = vec![RootfsMount {
        typ: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options: vec![
            format!("workdir={layers}/work"),
            format!("upperdir={layers}/upper"),
            format!("lowerdir={layers}/a:{layers}/b"),
        ],
    }];
    request
}

/// The host does not see the image. (Other mounts of the machine come and go.)
fn assert_not_mounted(dir: &Path) {
    let rootfs = dir.join("rootfs").display().to_string();
    let table = mount_table(&dir.join("base"));
    assert!(
        !table.iter().any(|line| line.contains(&rootfs)),
        "{table:?}"
    );
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn image_below_host_adds_only_missing_files() {
    isolated(|dir| {
        let request = of_image(dir, "a", ImageMode::Lower);
        let session = Session::open(&Configured::default(), &request).unwrap();
        assert_eq!(sh(&session, TOOL), "from the image");
        let name = fs::read_to_string("/etc/hostname").unwrap();
        assert_eq!(sh(&session, "cat /etc/hostname"), name.trim_end());
        sh(&session, &format!("echo x >{TOOL}"));
        assert_not_mounted(dir);
        session.close().unwrap();
        assert!(is_empty(&dir.join("rootfs")), "it was never mounted here");
        assert!(is_empty(&dir.join("layers/upper")), "nor written to");
    });
}

/// A symlink in the node's root.
struct Link(PathBuf);

impl Link {
    fn new(target: &Path) -> Self {
        let link = PathBuf::from(format!("/reaper-test-link-{}", std::process::id()));
        std::os::unix::fs::symlink(target, &link).unwrap();
        Self(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn beneath_a_merged_usr_the_images_own_bin_is_seen_where_the_link_leads() {
    isolated(|dir| {
        // As `/bin`, which leads to `usr/bin`.
        let merged = dir.join("merged");
        fs::create_dir_all(merged.join("both")).unwrap();
        fs::write(merged.join("tool"), "the node's").unwrap();
        fs::write(merged.join("both/node"), "").unwrap();
        let link = Link::new(&merged);
        let mut request = of_image(dir, "a", ImageMode::Lower);
        let layer = dir.join("layers/a");
        let own = layer.join(link.0.strip_prefix("/").unwrap());
        fs::create_dir_all(own.join("both")).unwrap();
        fs::create_dir_all(layer.join("bin")).unwrap();
        for (path, text) in [
            (own.join("tool"), "the image's"),
            (own.join("brought"), "of the image"),
            (own.join("both/image"), ""),
            (layer.join("bin/reaper-test-tool"), "#!/bin/sh\necho ran\n"),
        ] {
            fs::write(path, text).unwrap();
        }
        tool(
            "chmod",
            &["+x", layer.join("bin/reaper-test-tool").to_str().unwrap()],
        );
        request.rootfs_mounts[0].options.push("ro".to_owned());
        let session = Session::open(&Configured::default(), &request).unwrap();
        let said = session.warnings().join("\n");
        assert!(!said.contains("without what the image has"), "{said}");
        assert_eq!(sh(&session, "/bin/reaper-test-tool"), "ran");
        for at in [&link.0, &merged] {
            let look = format!(
                "cd {}; cat tool; echo; cat brought; echo; ls both",
                at.display()
            );
            assert_eq!(sh(&session, &look), "the node's\nof the image\nimage\nnode");
        }
        let changed = merged.join("tool");
        sh(
            &session,
            &format!("cd {}; echo x >tool; echo x >brought", link.0.display()),
        );
        let (overlays, scope) = overlays(&request);
        let changes = shown(&overlays, &scope);
        assert!(
            changes.contains(&format!("M {}", changed.display())),
            "{changes:?}"
        );
        session.close().unwrap();
        assert_eq!(fs::read_to_string(changed).unwrap(), "the node's");
        assert_eq!(
            fs::read_to_string(own.join("brought")).unwrap(),
            "of the image"
        );
    });
}

#[test]
fn image_at_its_own_path_is_read_only() {
    isolated(|dir| {
        let request = of_image(dir, "a", ImageMode::MountAt);
        let session = Session::open(&Configured::default(), &request).unwrap();
        assert_eq!(
            sh(&session, "cat $REAPER_IMAGE_ROOT/etc/hostname"),
            "the image's"
        );
        let run = format!("$REAPER_IMAGE_ROOT{TOOL}");
        assert_eq!(sh(&session, &run), "from the image");
        let refused = attempt(&session, "touch $REAPER_IMAGE_ROOT/new");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only"));
        assert_not_mounted(dir);
        let other = open(&common::request(dir, "b", OverlayScope::Node));
        assert_eq!(sh(&other, "ls /.reaper-image"), "", "only its place");
        session.close().unwrap();
        assert!(is_empty(&dir.join("rootfs")));
    });
}

#[test]
fn image_without_overlay_is_visible_only_to_its_container() {
    isolated(|dir| {
        let mut request = of_image(dir, "a", ImageMode::MountAt);
        request.overlay.enabled = false;
        let session = Session::open(&Configured::default(), &request).unwrap();
        let run = format!("$REAPER_IMAGE_ROOT{TOOL}");
        assert_eq!(sh(&session, &run), "from the image");
        assert!(is_empty(&dir.join("rootfs")));
        session.close().unwrap();
        assert!(is_empty(&dir.join("rootfs")));
    });
}

#[test]
fn failed_mount_is_named_and_leaves_nothing() {
    isolated(|dir| {
        for mode in [ImageMode::Lower, ImageMode::MountAt] {
            let mut request = of_image(dir, "a", mode);
            request.rootfs_mounts[0].options[2] = "lowerdir=/nowhere/at/all".to_owned();
            let error = Session::open(&Configured::default(), &request)
                .err()
                .unwrap();
            let root = dir.join("rootfs");
            assert!(
                error.to_string().contains(root.to_str().unwrap()),
                "{error}"
            );
            assert_not_mounted(dir);
        }
        assert!(!dir.join("base/scopes/container-a").exists());
    });
}

#[test]
fn an_image_on_the_nodes_own_filesystem_lies_beneath_it() {
    isolated(|dir| {
        let image = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = image.path().to_owned();
        fs::create_dir_all(root.join("reaper-test-image")).unwrap();
        fs::write(root.join("reaper-test-image/file"), "of the image").unwrap();
        let mut request = request(dir, "a", OverlayScope::Node);
        request.image = ImageMode::Lower;
        request.rootfs = Some(root.clone());
        let session = open(&request);
        assert_eq!(sh(&session, "cat /reaper-test-image/file"), "of the image");
        sh(&session, "echo x >/reaper-test-image/file; rm /etc/hosts");
        session.close().unwrap();
        let file = fs::read_to_string(root.join("reaper-test-image/file")).unwrap();
        assert_eq!(file, "of the image");
    });
}
