use super::*;
use crate::linux::mountinfo::{parse, visible};

fn plan(text: &str, hidden: &[&str]) -> SortedMounts {
    let mounts = parse(text.as_bytes());
    let hidden: Vec<_> = hidden.iter().map(PathBuf::from).collect();
    SortedMounts::new(&visible(&mounts), &["/var/lib/app/socket".into()], &hidden)
}

#[test]
fn plan_assigns_a_part_to_each_host_mount() {
    let plan = plan(
        "\
27 1 254:0 / / rw - ext4 /dev/vda rw
30 27 0:1 / /proc rw - proc proc rw
31 27 0:2 / /run rw shared:3 - tmpfs tmpfs rw
32 31 0:3 / /run/reaper/overlay rw - tmpfs reaper-overlay rw
33 31 0:4 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs rw - overlay overlay rw
34 31 0:5 / /run/user/0 rw - tmpfs tmpfs rw
35 27 8:1 / /home rw,nosuid,nodev - ext4 /dev/sda1 rw
36 35 8:2 / /home/deep rw - xfs /dev/sda2 rw
37 27 0:6 / /var/lib/kubelet/pods/u/volumes/kubernetes.io~secret/s rw - tmpfs tmpfs rw
38 27 0:7 / /srv/chroot/proc rw - proc proc rw
39 27 8:3 / /var/lib/app/socket rw - ext4 /dev/vda rw
40 27 8:4 / /gone//deleted rw - ext4 /dev/vda rw
",
        &["/run/reaper/overlay"],
    );
    let paths: Vec<_> = plan
        .submounts
        .iter()
        .map(|m| m.path.to_str().unwrap())
        .collect();
    assert_eq!(paths, ["/home", "/home/deep", "/srv/chroot/proc"]);
    let expected = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    assert_eq!(plan.submounts[0].attributes, expected);
    assert!(plan.submounts[1].overlay && !plan.submounts[2].overlay);
    assert_eq!(
        plan.detached,
        [
            PathBuf::from("/run/containerd/io.containerd.runtime.v2.task/k8s.io/x/rootfs"),
            PathBuf::from("/run/reaper/overlay"),
        ]
    );
}

#[test]
fn the_bases_of_other_configurations_are_hidden() {
    let disk = tempfile::tempdir().unwrap();
    let persistent = disk.path().join("overlay");
    fs::create_dir_all(persistent.join("scopes")).unwrap();
    let text = format!(
        "\
27 1 254:0 / / rw - ext4 /dev/vda rw
32 27 0:3 / /run/other/overlay rw unbindable - tmpfs reaper-overlay rw
33 27 0:4 / {}/live rw unbindable - tmpfs reaper-overlay rw
34 27 0:5 / /srv/live rw unbindable - tmpfs reaper-overlay rw
35 27 0:6 / /srv/data rw - tmpfs tmpfs rw
",
        persistent.display()
    );
    let mounts = parse(text.as_bytes());
    let found = bases(Path::new("/run/own"), &visible(&mounts));
    let expected = [
        Path::new("/run/other/overlay"),
        &persistent,
        Path::new("/srv/live"),
        Path::new("/run/own"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn path_with_common_prefix_only_is_not_below() {
    assert!(!below_any(Path::new("/runner"), &["/run".into()]));
    assert!(below_any(Path::new("/run"), &["/run".into()]));
}

#[test]
fn mounts_of_engines_are_found_wherever_they_are() {
    let plan = plan(
        "\
27 1 254:0 / / rw - ext4 /dev/vda rw
30 27 0:1 / /mnt/k3s/io.containerd.runtime.v2.task/k8s.io/x/rootfs rw - overlay overlay rw
31 27 0:2 / /data/kubelet/pods/u/volumes/kubernetes.io~secret/s rw - tmpfs tmpfs rw
32 27 0:3 / /data/kubelet/plugins rw - tmpfs tmpfs rw
33 32 0:4 / /data/kubelet/plugins/kubernetes.io/csi/d/1/globalmount rw - ext4 /dev/vdb rw
34 27 0:5 / /var/lib/kubelet/plugins/kubernetes.io/nfs/mounts/x rw - nfs s:/x rw
",
        &[],
    );
    let paths: Vec<_> = plan
        .submounts
        .iter()
        .map(|m| m.path.to_str().unwrap())
        .collect();
    assert_eq!(paths, ["/data/kubelet/plugins"]);
    for hidden in [
        "/mnt/k3s/io.containerd.runtime.v2.task",
        "/data/kubelet/pods",
        "/data/kubelet/plugins/kubernetes.io",
    ] {
        assert!(
            plan.hidden.iter().any(|path| path == Path::new(hidden)),
            "{hidden}"
        );
    }
}
