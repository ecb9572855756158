use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;
use rustix::mount::MountFlags;

use super::*;

/// Splits options as the kernel does: at commas that no backslash escapes.
fn split(options: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = options.iter();
    while let Some(&byte) = bytes.next() {
        let last = parts.last_mut().unwrap();
        match byte {
            b'\\' => {
                last.push(byte);
                last.extend(bytes.next());
            }
            byte if byte == separator => parts.push(Vec::new()),
            byte => last.push(byte),
        }
    }
    parts
}

fn unescape(value: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' {
            *bytes.next().unwrap()
        } else {
            byte
        });
    }
    plain
}

fn overlay(lower: Vec<PathBuf>, upper: PathBuf) -> Overlay {
    Overlay {
        lower,
        work: upper.join("work"),
        upper,
        persistent: false,
        userxattr: false,
        attributes: MountAttrFlags::empty(),
    }
}

fn name() -> impl Strategy<Value = PathBuf> {
    proptest::collection::vec(
        prop_oneof![Just(b','), Just(b':'), Just(b'\\'), 1u8..=255],
        1..30,
    )
    .prop_map(|name| PathBuf::from(OsString::from_vec(name)))
}

proptest! {
    #[test]
    fn overlay_options_parse_back_to_the_same_paths(
        lower in proptest::collection::vec(name(), 1..4),
        upper in name(),
    ) {
        let options = overlay(lower.clone(), upper.clone()).options();
        let parts = split(options.as_bytes(), b',');
        let layers: Vec<_> = split(parts[0].strip_prefix(b"lowerdir=").unwrap(), b':')
            .iter()
            .map(|layer| PathBuf::from(OsString::from_vec(unescape(layer))))
            .collect();
        prop_assert_eq!(layers, lower);
        let read = unescape(parts[1].strip_prefix(b"upperdir=").unwrap());
        prop_assert_eq!(read, upper.as_os_str().as_bytes());
    }
}

#[test]
fn odd_names_are_mounted_by_either_interface() {
    for interface in [Interface::Attributes, Interface::Classic] {
        // A thread has mounts of its own, which vanish with it.
        let done = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = rustix::mount::MountPropagationFlags::PRIVATE
                | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            let dir = tempfile::tempdir().unwrap();
            mount("test", dir.path(), "tmpfs", MountFlags::empty(), c"").unwrap();
            let odd = |name: &str| {
                let path = dir.path().join(format!("{name}: a,b\\c\nd\\054e"));
                std::fs::create_dir_all(&path).unwrap();
                path
            };
            let (first, second, merged) = (odd("first"), odd("second"), odd("merged"));
            std::fs::write(first.join("one"), "1").unwrap();
            std::fs::write(second.join("two"), "2").unwrap();
            let mut overlay = overlay(vec![first, second], odd("upper"));
            overlay.work = odd("work");
            let place = std::fs::File::open(&merged).unwrap();
            overlay.mount(interface, place.as_fd()).unwrap();
            drop(place);
            std::fs::write(merged.join("three"), "3").unwrap();
            assert!(merged.join("one").exists() && merged.join("two").exists());
            assert!(overlay.upper.join("three").exists());
            let lazily = rustix::mount::UnmountFlags::DETACH;
            rustix::mount::unmount(&merged, lazily).unwrap();
            rustix::mount::unmount(dir.path(), lazily).unwrap();
        });
        done.join().unwrap();
    }
}
