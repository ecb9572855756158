//! The options of a mount, as runtime-spec and mount(8) spell them.

use std::path::Path;

use nix::libc::{MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use reaper_spec::Mount;

use crate::{
    contract::Error,
    linux::syscall::MountAttr,
    mount::{
        flags::{ATIME, attribute},
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
    /// For the filesystem, where a new one is made.
    pub(crate) data: Vec<(String, Option<String>)>,
}

/// What has no meaning for a bind and none that matters here.
const WITHOUT_MEANING: [&str; 17] = [
    "defaults",
    "async",
    "sync",
    "dirsync",
    "mand",
    "nomand",
    "silent",
    "loud",
    "iversion",
    "noiversion",
    "lazytime",
    "nolazytime",
    "remount",
    "auto",
    "noauto",
    "user",
    "tmpcopyup",
];

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
        if matches!(kind, "bind" | "none" | "rbind" | "") {
            let recursion = if kind == "rbind" {
                Recursion::All
            } else {
                Recursion::Alone
            };
            options.bind = Some(recursion);
        }
        for option in &mount.options {
            match option.as_str() {
                "bind" => options.bind = options.bind.or(Some(Recursion::Alone)),
                "rbind" => options.bind = Some(Recursion::All),
                _ => {}
            }
        }
        for option in &mount.options {
            options.apply(option, &mount.destination)?;
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
        if matches!(option, "bind" | "rbind") || WITHOUT_MEANING.contains(&option) {
            return Ok(());
        }
        if self.bind.is_some() {
            let destination = destination.to_owned();
            return Err(Error::MountOption {
                destination,
                option: option.to_owned(),
            });
        }
        let (key, value) = match option.split_once('=') {
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
    fn a_volume_of_the_cri() {
        let options = parse(Some("bind"), &["rbind", "rprivate", "ro"]).unwrap();
        assert_eq!(options.bind, Some(Recursion::All));
        assert_eq!(options.propagation, Some((MS_PRIVATE, Recursion::All)));
        assert_eq!((options.attr.set, options.recursive.set), (RDONLY, 0));
    }

    #[test]
    fn recursive_read_only_is_told_apart() {
        let options = parse(None, &["bind", "rro"]).unwrap();
        assert_eq!((options.attr.set, options.recursive.set), (0, RDONLY));
        assert_eq!(options.bind, Some(Recursion::Alone));
    }

    #[test]
    fn the_last_one_counts() {
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
    fn an_unknown_option_of_a_bind_is_named() {
        let error = parse(None, &["rbind", "idmap"]).unwrap_err();
        assert!(error.to_string().contains("\"idmap\""), "{error}");
    }
}
