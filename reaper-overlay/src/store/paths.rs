//! Where the files of a scope are.

use std::path::{Path, PathBuf};

use crate::contract::Scope;

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
}

impl ScopePaths {
    pub(crate) fn new(base: &Path, scope: &Scope) -> Self {
        let live = base.join("live/scopes").join(scope.as_str());
        Self {
            data: base.join("scopes").join(scope.as_str()),
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
        self.live.join("masks")
    }

    /// Which layer belongs to which mount of the host.
    pub(crate) fn layers(&self) -> PathBuf {
        self.data.join("layers.json")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_name_escapes_the_base(name in any::<String>()) {
            let scopes = [Scope::group(&name), Scope::pod(&name), Scope::namespace(&name), name.parse()];
            for scope in scopes.into_iter().flatten() {
                let paths = ScopePaths::new(Path::new("/base"), &scope);
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
