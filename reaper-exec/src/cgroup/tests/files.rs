//! What is read from the files of the kernel and written to them.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::cgroup::{hierarchy::cgroup2_mounts, subtree::parse_events};

#[test]
fn cpu_time_is_counted_over_the_life_of_the_container() {
    let scratch = Scratch::new();
    let script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    let mut child = spawn_in(&scratch.0.add_leaf("init").expect("leaf"), script);
    child.wait().expect("wait");
    let cgroups: Cgroups = serde_json::from_value(serde_json::json!({
        "cgroup": scratch.0,
    }))
    .expect("a description");
    let stats = cgroups.stats();
    assert!(stats.cpu.is_some_and(|cpu| cpu.usage_ns > 0));
}

#[test]
fn write_distinguishes_missing_cgroup_file_from_refusal() {
    let scratch = Scratch::new();
    assert!(!subtree::write(scratch.0.path(), "cgroup.future", "1").expect("not there"));
    assert!(subtree::write(scratch.0.path(), "cgroup.freeze", "0").expect("there"));
    let refusal = subtree::write(scratch.0.path(), "cgroup.freeze", "x").expect_err("no number");
    assert!(refusal.to_string().contains("cgroup.freeze"), "{refusal}");
}

#[test]
fn nothing_but_a_cgroup2_mount_is_a_hierarchy() {
    assert_eq!(Hierarchy::at(Path::new("/proc")), None);
    assert_eq!(Hierarchy::at(Path::new("/nonexistent")), None);
    let found = hierarchy();
    assert_eq!(Hierarchy::at(found.root()), Some(found.clone()));
}

#[test]
fn mount_points_are_read_from_mountinfo() {
    let lines = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw shared:9 master:2 - cgroup2 cgroup2 rw\n\
        42 31 0:38 /docker/x /var/lib/x rw - cgroup2 cgroup2 rw\n\
        43 31 0:38 / /mnt/a\\040b\\134c rw - cgroup2 none rw\n\
        44 31 0:38 / /short\n";
    let expected = ["/sys/fs/cgroup/unified", "/mnt/a b\\c"].map(PathBuf::from);
    assert_eq!(cgroup2_mounts(lines), expected);
    assert!(cgroup2_mounts(&lines[..100]).is_empty(), "v1 alone");
}

/// What the kernel writes for a path.
fn escape(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", c as u32),
            other => other.to_string(),
        })
        .collect()
}

proptest! {
    #[test]
    fn any_escaped_cgroup2_mount_point_is_read_back(path in "/[^\0]{0,40}", tags in 0_usize..4) {
        let tags = " shared:1".repeat(tags);
        let line = format!("1 2 0:3 / {} rw{tags} - cgroup2 cgroup2 rw", escape(&path));
        prop_assert_eq!(cgroup2_mounts(line.as_bytes()), [PathBuf::from(path)]);
    }

    #[test]
    fn parsers_of_cgroup_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256), text in ".{0,99}") {
        let _ = cgroup2_mounts(&bytes);
        let _ = parse_events(&bytes);
        let _ = stats::keyed(&text);
    }

    #[test]
    fn events_are_read_in_any_order(populated: bool, frozen: bool, swapped: bool) {
        let mut lines = [
            format!("populated {}\n", u8::from(populated)),
            format!("frozen {}\n", u8::from(frozen)),
        ];
        if swapped {
            lines.swap(0, 1);
        }
        prop_assert_eq!(parse_events(lines.concat().as_bytes()), Events { populated, frozen });
    }
}
