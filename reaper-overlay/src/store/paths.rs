//! Where the files of a scope are.

use std::path::{Path, PathBuf};

use super::{base::Base, record::Record};
use crate::contract::Scope;

/// Below the base, on a filesystem that has nothing of workloads.
pub(crate) const RECORDS: &str = "live/records";

/// Where the files of a scope are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScopePaths {
    /// The layers and their table: what a reset removes.
    pub(crate) data: PathBuf,
    /// What lives until the reboot at most: the pin, members, mount points.
    pub(crate) live: PathBuf,
    /// The file that the mount namespace is bound to.
    pub(crate) pin: PathBuf,
    /// Held alone while the scope is made, reset, or its mount points change.
    pub(crate) changing: PathBuf,
    /// Shared by every member, held alone by reset.
    pub(crate) members_lock: PathBuf,
    /// What workloads cannot fill: the table of the layers, and the layers that hide what is masked.
    pub(crate) records: PathBuf,
    /// Where the view is mounted of a scope whose namespace keeps the host's root, in that one.
    pub(crate) view: PathBuf,
    table: Record,
}

impl ScopePaths {
    pub(crate) fn new(base: &Base, scope: &Scope) -> Self {
        let persistent = base.persistent;
        let live = Path::new("live/scopes").join(scope.as_str());
        // Not on a filesystem of the host, which can be a volume.
        let view = base.path_at_home.join(&live).join("view");
        let base = base.path.as_path();
        let live = base.join(live);
        let data = Path::new("scopes").join(scope.as_str());
        let records = Path::new(RECORDS).join(&data);
        let [path, safe] = [&data, &records].map(|dir| dir.join("layers.json"));
        Self {
            data: base.join(data),
            records: base.join(records),
            view,
            table: Record::new(base, &path, &safe, persistent),
            pin: live.join("pin"),
            live,
            changing: base.join("live/changing").join(scope.as_str()),
            members_lock: base.join("live/members").join(scope.as_str()),
        }
    }

    /// Says that the scope is to go with its last member.
    pub(crate) fn remove_when_empty(&self) -> PathBuf {
        self.live.join("forgotten")
    }

    /// A file for each member, which it holds locked.
    pub(crate) fn members(&self) -> PathBuf {
        self.live.join("members")
    }

    /// The layers that hide what is masked, while the scope is mounted.
    pub(crate) fn live_masks(&self) -> PathBuf {
        self.records.join("masks")
    }

    /// Whether the layers outlive a reboot.
    pub(crate) fn is_persistent(&self) -> bool {
        self.table.is_persistent()
    }

    /// Which layer belongs to which mount of the host.
    pub(crate) fn layers(&self) -> &Record {
        &self.table
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn scope_paths_never_leave_the_base(name in any::<String>()) {
            let scopes = [Scope::group(&name), Scope::pod(&name), Scope::namespace(&name), name.parse()];
            for scope in scopes.into_iter().flatten() {
                let paths = ScopePaths::new(&Base::at(Path::new("/base")), &scope);
                let relative = paths.data.strip_prefix("/base/scopes").unwrap();
                prop_assert_eq!(relative.components().count(), 1);
                let normal = matches!(
                    relative.components().next(),
                    Some(std::path::Component::Normal(_))
                );
                prop_assert!(normal);
            }
        }
    }
}
