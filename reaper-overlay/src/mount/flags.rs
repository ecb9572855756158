//! The options of a mount that are on or off, as mount(8), mount(2) and mount_setattr(2) spell
//! them.

use rustix::mount::{MountAttrFlags, MountFlags};

/// When a file's access time is updated: a number, not a set of flags.
pub(crate) const ATIME: u64 = bits(MountAttrFlags::MOUNT_ATTR__ATIME);

/// One option.
pub(crate) struct MountFlag {
    /// Also the name in mountinfo.
    pub(crate) name: &'static str,
    /// What turns it off.
    pub(crate) inverse: &'static str,
    pub(crate) ms: MountFlags,
    pub(crate) attr: MountAttrFlags,
}

/// All but those of access times, of which a mount has exactly one.
pub(crate) const FLAGS: [MountFlag; 6] = [
    MountFlag {
        name: "ro",
        inverse: "rw",
        ms: MountFlags::RDONLY,
        attr: MountAttrFlags::MOUNT_ATTR_RDONLY,
    },
    MountFlag {
        name: "nosuid",
        inverse: "suid",
        ms: MountFlags::NOSUID,
        attr: MountAttrFlags::MOUNT_ATTR_NOSUID,
    },
    MountFlag {
        name: "nodev",
        inverse: "dev",
        ms: MountFlags::NODEV,
        attr: MountAttrFlags::MOUNT_ATTR_NODEV,
    },
    MountFlag {
        name: "noexec",
        inverse: "exec",
        ms: MountFlags::NOEXEC,
        attr: MountAttrFlags::MOUNT_ATTR_NOEXEC,
    },
    MountFlag {
        name: "nodiratime",
        inverse: "diratime",
        ms: MountFlags::NODIRATIME,
        attr: MountAttrFlags::MOUNT_ATTR_NODIRATIME,
    },
    MountFlag {
        name: "nosymfollow",
        inverse: "symfollow",
        ms: MountFlags::NOSYMFOLLOW,
        attr: MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
    },
];

/// A flag as the fields of `struct mount_attr` have it.
pub(crate) const fn bits(flag: MountAttrFlags) -> u64 {
    flag.bits() as u64
}

/// What the option `name` sets and clears of a mount's attributes.
pub(crate) fn attribute(name: &str) -> Option<(u64, u64)> {
    match name {
        "noatime" => return Some((bits(MountAttrFlags::MOUNT_ATTR_NOATIME), ATIME)),
        "strictatime" => return Some((bits(MountAttrFlags::MOUNT_ATTR_STRICTATIME), ATIME)),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => return Some((0, ATIME)),
        _ => {}
    }
    FLAGS.iter().find_map(|flag| match name {
        _ if name == flag.name => Some((bits(flag.attr), 0)),
        _ if name == flag.inverse => Some((0, bits(flag.attr))),
        _ => None,
    })
}

/// The attributes among `options`, those of a mount of the host, that an overlay over it has as
/// well.
pub(crate) fn inherited(options: &[String]) -> MountAttrFlags {
    let has = |name: &str| options.iter().any(|option| option == name);
    // An overlay is writable, and follows symlinks.
    let not = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
    let flags = FLAGS.iter().filter(|flag| has(flag.name));
    let mut found = flags.fold(MountAttrFlags::empty(), |found, flag| found | flag.attr) - not;
    if has("noatime") {
        found |= MountAttrFlags::MOUNT_ATTR_NOATIME;
    }
    found
}

/// The same attributes as mount(2) takes them.
pub(crate) fn for_mount(attributes: MountAttrFlags) -> MountFlags {
    let flags = FLAGS.iter().filter(|flag| attributes.contains(flag.attr));
    let mut found = flags.fold(MountFlags::empty(), |found, flag| found | flag.ms);
    if attributes.contains(MountAttrFlags::MOUNT_ATTR_NOATIME) {
        found |= MountFlags::NOATIME;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_inherits_restricting_flags_of_the_host() {
        let options = ["rw", "nosuid", "noexec", "relatime"].map(str::to_owned);
        let expected = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        assert_eq!(inherited(&options), expected);
        assert_eq!(for_mount(expected), MountFlags::NOSUID | MountFlags::NOEXEC);
    }
}
