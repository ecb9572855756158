//! Configurations that are reached by a symbolic link.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::{Host, Image};

#[test]
fn a_drop_in_goes_beside_the_link_that_containerd_is_started_with() {
    let image = Image::new("/etc/containerd/config.toml", None);
    for dir in ["/etc/containerd/conf.d", "/data"] {
        fs::create_dir_all(image.path(dir)).unwrap();
    }
    let text = "version = 3\nimports = ['conf.d/*.toml']\n";
    fs::write(image.path("/data/real.toml"), text).unwrap();
    symlink("/data/real.toml", image.path("/etc/containerd/config.toml")).unwrap();
    let before = image.tree();
    assert!(image.install("1", &Host));
    let drop_in = image.path("/etc/containerd/conf.d/reaper-v2.toml");
    assert!(
        fs::read_to_string(drop_in)
            .unwrap()
            .contains("reaper-v2-pod")
    );
    assert!(!image.path("/data/conf.d").exists());
    assert!(image.uninstall(&Host));
    assert_eq!(image.tree(), before);
}

#[test]
fn what_is_added_to_a_snap_is_found_in_its_next_revision() {
    const ARGS: &str = "args/containerd-template.toml";
    for config in ["current", "1"] {
        let config = format!("/var/snap/microk8s/{config}/args/containerd.toml");
        let image = Image::new(&config, None);
        let snap = image.path("/var/snap/microk8s");
        let text = "version = 2\n";
        for name in ["containerd.toml", "containerd-template.toml"] {
            let file = snap.join("1/args").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        symlink("1", snap.join("current")).unwrap();
        assert!(image.install("1", &Host));
        let changed = fs::read_to_string(snap.join("1").join(ARGS)).unwrap();
        assert!(changed.contains("reaper-v2-pod"));
        // What snapd does at a refresh.
        fs::create_dir_all(snap.join("2/args")).unwrap();
        for entry in fs::read_dir(snap.join("1/args")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, snap.join("2/args").join(from.file_name().unwrap())).unwrap();
        }
        fs::remove_file(snap.join("current")).unwrap();
        symlink("2", snap.join("current")).unwrap();
        assert!(image.uninstall(&Host));
        let left = fs::read_to_string(snap.join("2").join(ARGS)).unwrap();
        assert_eq!(left, text, "{config}");
        assert_eq!(fs::read_dir(snap.join("2/args")).unwrap().count(), 2);
        assert!(
            !image
                .path("/etc/reaper")
                .join(Path::new("install.json"))
                .exists()
        );
    }
}
