//! The options of a mount, as runtime-spec and mount(8) spell them.

use std::path::Path;

use nix::libc::{MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use reaper_spec::Mount;
use rustix::mount::MountAttrFlags;

use crate::{
    contract::Error,
    linux::syscall::MountAttr,
    mount::{
        flags::{ATIME, attribute, bits},
        interface::Recursion,
    },
};

/// A mount that was asked for, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// A bind mount; with what is mounted below it, or without.
    pub(crate) bind: Option<Recursion>,
    /// For the mount alone.
    pub(crate) attr: MountAttr,
    /// For it and all below it.
    pub(crate) recursive: MountAttr,
    /// `None` is the default, private with all below.
    pub(crate) propagation: Option<(u64, Recursion)>,
    /// A new filesystem gets a copy of what it is mounted on.
    pub(crate) copy_up: bool,
    /// For the filesystem, where a new one is made.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// What is so without being asked for, or changes only what the kernel logs.
const DEFAULTS: [&str; 7] = [
    "defaults",
    "async",
    "nomand",
    "noiversion",
    "nolazytime",
    "silent",
    "loud",
];

/// What the kernel no longer knows, what changes a mount that there is, what changes owners, and what is a tmpfs's
/// alone.
const REFUSED: [&str; 6] = [
    "mand",
    "iversion",
    "remount",
    "idmap",
    "ridmap",
    "tmpcopyup",
];

/// SELinux labels (mount(8)).
pub(super) const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

fn merge(attr: &mut MountAttr, (set, clear): (u64, u64)) {
    // The last one counts.
    attr.set = attr.set & !clear | set;
    attr.clear = attr.clear & !set | clear;
}

impl Options {
    /// Understands the options of `mount`.
    pub(crate) fn parse(mount: &Mount) -> Result<Self, Error> {
        let mut options = Self::default();
        let kind = mount.typ.as_deref().unwrap_or("bind");
        options.bind = mount.is_bind().then(|| match mount.is_recursive() {
            true => Recursion::All,
            false => Recursion::Alone,
        });
        for option in &mount.options {
            if option == "tmpcopyup" && kind == "tmpfs" && options.bind.is_none() {
                options.copy_up = true;
            } else {
                options.apply(option, &mount.destination)?;
            }
        }
        // A change of the access times has to say what it replaces.
        for attr in [&mut options.attr, &mut options.recursive] {
            if attr.set & ATIME != 0 {
                attr.clear |= ATIME;
            }
        }
        Ok(options)
    }

    /// What is mounted in it later, and where that is seen.
    pub(crate) fn propagation(&self) -> (u64, Recursion) {
        self.propagation.unwrap_or((MS_PRIVATE, Recursion::All))
    }

    /// What of it restricts the use of the host's tree that the view has in its place, as `MOUNT_ATTR_*`.
    pub(crate) fn restricting(&self) -> u64 {
        let restricting = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW;
        (self.attr.set | self.recursive.set) & bits(restricting)
    }

    fn apply(&mut self, option: &str, destination: &Path) -> Result<(), Error> {
        if let Some(change) = attribute(option) {
            merge(&mut self.attr, change);
            return Ok(());
        }
        if let Some(change) = option.strip_prefix('r').and_then(attribute) {
            merge(&mut self.recursive, change);
            return Ok(());
        }
        let (propagation, recursion) = match option.strip_prefix('r') {
            Some(rest) => (propagation(rest), Recursion::All),
            None => (propagation(option), Recursion::Alone),
        };
        if let Some(propagation) = propagation {
            self.propagation = Some((propagation, recursion));
            return Ok(());
        }
        if matches!(option, "bind" | "rbind") || DEFAULTS.contains(&option) {
            return Ok(());
        }
        if self.bind.is_some() || REFUSED.contains(&option) {
            let destination = destination.to_owned();
            return Err(Error::MountOption {
                destination,
                option: option.to_owned(),
            });
        }
        let (key, value) = match option.split_once('=') {
            // fsconfig(2) takes it without the quotes that mount(2) wants around a comma.
            Some((key, value)) if CONTEXTS.contains(&key) => {
                (key, Some(value.trim_matches('"').to_owned()))
            }
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (option, None),
        };
        self.data.push((key.to_owned(), value));
        Ok(())
    }
}

fn propagation(name: &str) -> Option<u64> {
    match name {
        "private" => Some(MS_PRIVATE),
        "slave" => Some(MS_SLAVE),
        "shared" => Some(MS_SHARED),
        "unbindable" => Some(MS_UNBINDABLE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    fn parse(kind: Option<&str>, options: &[&str]) -> Result<Options, Error> {
        Options::parse(&Mount {
            destination: "/data".into(),
            typ: kind.map(str::to_owned),
            source: Some("/src".into()),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        })
    }

    const RDONLY: u64 = 1;

    #[test]
    fn options_of_cri_volume_are_parsed() {
        let options = parse(Some("bind"), &["rbind", "rprivate", "ro"]).unwrap();
        assert_eq!(options.bind, Some(Recursion::All));
        assert_eq!(options.propagation, Some((MS_PRIVATE, Recursion::All)));
        assert_eq!((options.attr.set, options.recursive.set), (RDONLY, 0));
    }

    #[test]
    fn rro_sets_only_the_recursive_read_only_flag() {
        let options = parse(None, &["bind", "rro"]).unwrap();
        assert_eq!((options.attr.set, options.recursive.set), (0, RDONLY));
        assert_eq!(options.bind, Some(Recursion::Alone));
    }

    #[test]
    fn last_of_conflicting_options_wins() {
        let options = parse(None, &["ro", "rw", "noatime"]).unwrap();
        assert_eq!(options.attr.set & RDONLY, 0);
        assert_eq!(options.attr.clear & RDONLY, RDONLY);
        assert_eq!(options.attr.clear & ATIME, ATIME);
    }

    #[test]
    fn a_tmpfs_keeps_its_own_options() {
        let options = parse(Some("tmpfs"), &["nosuid", "mode=1777", "size=65536k"]).unwrap();
        assert_eq!(options.bind, None);
        assert_eq!(
            options.data[1],
            ("size".to_owned(), Some("65536k".to_owned()))
        );
    }

    #[test]
    fn a_label_is_kept_whole_and_without_the_quotes_of_mount() {
        let options = parse(Some("tmpfs"), &["context=\"u:r:t:s0:c1,c2\"", "size=1m"]).unwrap();
        let label = Some("u:r:t:s0:c1,c2".to_owned());
        assert_eq!(options.data[0], ("context".to_owned(), label));
    }

    #[test]
    fn an_option_that_cannot_be_had_is_named() {
        for (kind, option) in [
            (None, "idmap"),
            (None, "sync"),
            (None, "size=1m"),
            (None, "user"),
            (Some("bind"), "tmpcopyup"),
            (Some("tmpfs"), "ridmap"),
            (Some("tmpfs"), "remount"),
            (Some("ramfs"), "tmpcopyup"),
        ] {
            let error = parse(kind, &[option]).unwrap_err();
            assert!(
                error.to_string().contains(&format!("{option:?}")),
                "{error}"
            );
        }
    }

    #[test]
    fn every_option_of_runc_is_honoured() {
        let names = [
            "async",
            "atime",
            "bind",
            "defaults",
            "dev",
            "diratime",
            "exec",
            "loud",
            "noatime",
            "nodev",
            "nodiratime",
            "noexec",
            "noiversion",
            "nolazytime",
            "nomand",
            "norelatime",
            "nostrictatime",
            "nosuid",
            "nosymfollow",
            "rbind",
            "relatime",
            "ro",
            "rw",
            "silent",
            "strictatime",
            "suid",
            "symfollow",
            "private",
            "shared",
            "slave",
            "unbindable",
            "rprivate",
            "rshared",
            "rslave",
            "runbindable",
            "rro",
            "rrw",
            "rnosuid",
            "rsuid",
            "rnodev",
            "rdev",
            "rnoexec",
            "rexec",
            "rnodiratime",
            "rdiratime",
            "rrelatime",
            "rnorelatime",
            "rnoatime",
            "ratime",
            "rstrictatime",
            "rnostrictatime",
            "rnosymfollow",
            "rsymfollow",
        ];
        for name in names {
            let options = parse(Some("bind"), &[name]).unwrap();
            assert!(options.data.is_empty(), "{name}");
        }
        let options = parse(Some("tmpfs"), &["tmpcopyup", "sync", "lazytime", "size=1m"]).unwrap();
        assert!(options.copy_up);
        let keys: Vec<_> = options.data.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["sync", "lazytime", "size"]);
    }

    /// Options that undo each other.
    const PAIRS: &[(&str, &str)] = &[
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("nosymfollow", "symfollow"),
    ];

    fn known() -> impl Strategy<Value = String> {
        let names: Vec<&str> = PAIRS
            .iter()
            .flat_map(|(one, other)| [*one, *other])
            .collect();
        (select(names), any::<bool>()).prop_map(|(name, recursive)| match recursive {
            true => format!("r{name}"),
            false => name.to_owned(),
        })
    }

    proptest! {
        #[test]
        fn any_options_are_understood_or_the_refused_one_is_named(
            kind in select(vec![None, Some("bind"), Some("tmpfs"), Some("proc")]),
            options in vec(prop_oneof![any::<String>(), known(), "[a-z]{1,4}(=[a-z]{0,3})?"], 0..6),
        ) {
            let given: Vec<&str> = options.iter().map(String::as_str).collect();
            match parse(kind, &given) {
                Ok(parsed) => {
                    prop_assert_eq!(parsed.attr.set & parsed.attr.clear & !ATIME, 0);
                    // What is not the mount's own is the filesystem's, as it was written.
                    for (key, value) in &parsed.data {
                        let written = options.iter().any(|option| match (option.split_once('='), value) {
                            (Some((name, text)), Some(value)) => name == key && text.contains(value.as_str()),
                            (None, None) => option == key,
                            _ => false,
                        });
                        prop_assert!(written, "{}={:?}", key, value);
                    }
                }
                Err(Error::MountOption { destination, option }) => {
                    prop_assert_eq!(destination, Path::new("/data"));
                    prop_assert!(options.contains(&option), "{}", option);
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }

        #[test]
        fn last_of_each_pair_counts(
            options in vec(known(), 0..12),
            (one, other) in select(PAIRS),
            recursive in any::<bool>(),
        ) {
            let prefix = if recursive { "r" } else { "" };
            let (one, other) = (format!("{prefix}{one}"), format!("{prefix}{other}"));
            let mut undone: Vec<&str> = options.iter().map(String::as_str).collect();
            undone.extend([one.as_str(), other.as_str()]);
            let mut plain: Vec<&str> = options.iter().map(String::as_str).collect();
            plain.push(&other);
            prop_assert_eq!(parse(None, &undone).unwrap(), parse(None, &plain).unwrap());
        }
    }
}
