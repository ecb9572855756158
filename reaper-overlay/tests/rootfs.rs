//! Root filesystems of images, mounted and unmounted in a private mount namespace.

use std::{fs, path::Path};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use reaper_overlay::{RootfsMount, mount_rootfs, unmount_rootfs};

/// Of this thread alone.
fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .unwrap();
}

fn wanted(kind: &str, source: &Path, options: &[String]) -> RootfsMount {
    RootfsMount {
        typ: kind.to_owned(),
        source: source.display().to_string(),
        options: options.to_vec(),
    }
}

fn is_mounted(at: &Path) -> bool {
    let own = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    own.lines()
        .any(|line| line.split(' ').nth(4) == Some(at.to_str().unwrap()))
}

#[test]
fn read_only_rootfs_bind_refuses_writes() {
    private_mounts();
    let dir = tempfile::tempdir().unwrap();
    let [source, at] = ["source", "rootfs"].map(|name| dir.path().join(name));
    for folder in [&source, &at] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(source.join("file"), "x").unwrap();
    let mounts = [wanted("bind", &source, &["rbind".into(), "ro".into()])];
    mount_rootfs(&mounts, &at).unwrap();
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "x");
    let refused = fs::write(at.join("new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    unmount_rootfs(&mounts, &at).unwrap();
    assert!(!is_mounted(&at));
    unmount_rootfs(&mounts, &at).unwrap();
}

#[test]
fn failed_rootfs_mount_undoes_earlier_ones() {
    private_mounts();
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("rootfs");
    fs::create_dir(&at).unwrap();
    let good = wanted("tmpfs", Path::new("tmpfs"), &["size=64k".into()]);
    let bad = wanted("tmpfs", Path::new("tmpfs"), &["no-such-option".into()]);
    let error = mount_rootfs(&[good, bad], &at).unwrap_err().to_string();
    assert!(error.contains(at.to_str().unwrap()), "{error}");
    assert!(!is_mounted(&at));
}

#[test]
fn an_overlay_has_more_layers_than_mount_takes_by_their_names() {
    private_mounts();
    let dir = tempfile::tempdir().unwrap();
    // The overlay's own layers may not lie on an overlay.
    let base = dir.path().join("snapshots");
    fs::create_dir(&base).unwrap();
    mount(
        Some("tmpfs"),
        &base,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let at = dir.path().join("rootfs");
    let long = base.join("x".repeat(120));
    let layers: Vec<_> = (0..60)
        .map(|number| long.join(number.to_string()))
        .collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer).unwrap();
        fs::write(layer.join(format!("file-{number}")), "").unwrap();
    }
    fs::create_dir(&at).unwrap();
    let names: Vec<_> = layers
        .iter()
        .map(|layer| layer.display().to_string())
        .collect();
    let option = format!("lowerdir={}", names.join(":"));
    assert!(option.len() > 4096);
    let before = std::env::current_dir().unwrap();
    let mounts = [wanted("overlay", Path::new("overlay"), &[option])];
    mount_rootfs(&mounts, &at).unwrap();
    assert_eq!(fs::read_dir(&at).unwrap().count(), 60);
    assert_eq!(std::env::current_dir().unwrap(), before);
    unmount_rootfs(&mounts, &at).unwrap();
}
