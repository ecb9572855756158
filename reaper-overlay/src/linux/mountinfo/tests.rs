use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;

use super::*;

const NODE: &[u8] = b"\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 8:1 /data /mnt/with\\040space\\012newline\\134and:colon rw,nosuid master:3 propagate_from:1 - xfs /dev/sda1 rw,attr2
31 30 0:40 / /mnt/with\\040space\\012newline\\134and:colon/sub ro - tmpfs tmp\\040fs rw
";

#[test]
fn escaped_names_in_mountinfo_are_unescaped() {
    let mounts = parse(NODE);
    assert_eq!(mounts.len(), 4);
    assert_eq!(
        mounts[2].mount_point,
        Path::new("/mnt/with space\nnewline\\and:colon")
    );
    assert_eq!(mounts[2].propagation, ["master:3", "propagate_from:1"]);
    assert_eq!(mounts[2].root, Path::new("/data"));
    assert_eq!(mounts[3].source, "tmp fs");
    assert_eq!(mounts[3].options, ["ro"]);
}

#[test]
fn mounts_covered_by_other_mounts_are_not_visible() {
    let mounts = parse(
        b"\
1 0 0:1 / / rw - rootfs rootfs rw
27 1 254:0 / / rw - ext4 /dev/vda rw
40 27 0:2 / /mnt rw - tmpfs a rw
41 40 0:3 / /mnt/deep rw - tmpfs below-a rw
42 40 0:4 / /mnt rw - tmpfs over-a rw
43 42 0:5 / /mnt/deep rw - tmpfs seen rw
44 27 0:6 / /srv/x rw - tmpfs hidden-by-srv rw
45 27 0:7 / /srv rw - tmpfs srv rw
46 27 0:8 / /opt rw - tmpfs first rw
47 46 0:9 / /opt rw - tmpfs second rw
",
    );
    let seen: Vec<_> = visible(&mounts).iter().map(|mount| mount.id).collect();
    assert_eq!(seen, [27, 42, 45, 47, 43]);
}

#[test]
fn the_mounts_of_this_process_are_read() {
    let mounts = read().unwrap();
    let seen = visible(&mounts);
    assert_eq!(seen[0].mount_point, Path::new("/"));
    assert!(seen.iter().any(|mount| mount.fs_type == "proc"));
}

proptest! {
    #[test]
    fn unescape_reverses_escape(name in proptest::collection::vec(1u8..=255, 0..64)) {
        let name = OsStr::from_bytes(&name);
        let escaped = escape(name);
        prop_assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(unescape(escaped.as_bytes()), name);
    }

    #[test]
    fn any_mount_point_survives_the_kernels_escaping(
        name in proptest::collection::vec(1u8..=255, 1..40),
    ) {
        let mut line = b"30 27 8:1 / /".to_vec();
        for &byte in &name {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => line.extend(format!("\\{byte:03o}").bytes()),
                _ => line.push(byte),
            }
        }
        line.extend(b" rw - tmpfs none rw\n");
        let mounts = parse(&line);
        prop_assert_eq!(mounts.len(), 1);
        let mut expected = b"/".to_vec();
        expected.extend(&name);
        prop_assert_eq!(mounts[0].mount_point.as_os_str().as_bytes(), expected);
    }

    #[test]
    fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mounts = parse(&text);
        let _ = visible(&mounts);
    }

    #[test]
    fn no_tree_of_mounts_panics_or_hangs(
        mounts in proptest::collection::vec((0u32..12, 0u32..12, "/[ab]?(/[ab])?"), 0..12),
    ) {
        let mut text = String::new();
        for (id, parent, point) in mounts {
            text += &format!("{id} {parent} 0:1 / {point} rw - tmpfs none rw\n");
        }
        let mounts = parse(text.as_bytes());
        let seen = visible(&mounts);
        prop_assert!(seen.len() <= mounts.len());
    }
}
