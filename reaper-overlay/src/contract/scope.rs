//! The names of scopes: who shares an overlay.

use std::{fmt, str::FromStr};

use super::error::Error;

/// The longest name of a scope that is accepted, without its kind.
const MAX_NAME: usize = 128;

/// The longest suffix of a container's id that is accepted: containerd's names of namespaces have at most 76
/// bytes. With it the whole name is one that a directory can have (`NAME_MAX`).
const MAX_SUFFIX: usize = 100;

/// One overlay that is shared by those who belong to it.
///
/// Its name is one path component that cannot escape the base directory, whatever the pod or the
/// namespace was called:
///
/// ```
/// use reaper_overlay::Scope;
/// assert_eq!(Scope::group("builds").unwrap().to_string(), "group-builds");
/// assert!(Scope::group("../../etc").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

impl Scope {
    /// The scope of the whole node.
    pub fn node() -> Self {
        Self("node".to_owned())
    }

    /// The scope of a Kubernetes namespace.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn namespace(name: &str) -> Result<Self, Error> {
        Self::named("namespace", name)
    }

    /// The scope of a pod.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn pod(sandbox: &str) -> Result<Self, Error> {
        Self::named("pod", sandbox)
    }

    /// The scope of one container, by its id, or, outside of the usual state root, by its
    /// [unique id](super::ViewRequest::unique_id) `ID~SUFFIX`.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn container(id: &str) -> Result<Self, Error> {
        let (plain, suffix) = id.split_once('~').unwrap_or((id, "_"));
        let name = suffix.strip_prefix('+').unwrap_or(suffix);
        if is_name(plain) && is_name(name) && name.len() <= MAX_SUFFIX {
            return Ok(Self(format!("container-{id}")));
        }
        Err(Error::ScopeName {
            name: id.to_owned(),
        })
    }

    /// The scope of all that name the same group.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn group(name: &str) -> Result<Self, Error> {
        Self::named("group", name)
    }

    fn named(kind: &str, name: &str) -> Result<Self, Error> {
        if is_name(name) {
            Ok(Self(format!("{kind}-{name}")))
        } else {
            Err(Error::ScopeName {
                name: name.to_owned(),
            })
        }
    }

    /// The name, one safe path component.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it belongs to a single container.
    pub fn is_container(&self) -> bool {
        self.0.starts_with("container-")
    }

    /// The container that it belongs to, by its [unique id](super::ViewRequest::unique_id).
    pub fn container_id(&self) -> Option<&str> {
        self.0.strip_prefix("container-")
    }
}

pub(crate) fn is_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= MAX_NAME
        && name.starts_with(word)
        && name
            .chars()
            .all(|c| word(c) || matches!(c, '-' | '.' | '+'))
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Scope {
    type Err = Error;

    /// Reads the name that [`Scope::as_str`] gives, also with a colon behind its kind, as in the
    /// configuration (`group:builds`); a bare name that is of no kind is a container's.
    fn from_str(name: &str) -> Result<Self, Error> {
        if name == "node" {
            return Ok(Self::node());
        }
        // No name has a colon.
        let kind_and_name = name.split_once(':').or_else(|| name.split_once('-'));
        match kind_and_name {
            Some(("container", id)) => Self::container(id),
            Some((kind @ ("namespace" | "pod" | "group"), rest)) => Self::named(kind, rest),
            _ => Self::container(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scope_kinds_with_same_name_do_not_collide() {
        let group = Scope::group("node").unwrap();
        let pod = Scope::pod("x").unwrap();
        assert_ne!(group, Scope::node());
        assert_ne!(pod, Scope::namespace("x").unwrap());
        assert_eq!(pod.as_str().parse::<Scope>().unwrap(), pod);
        for name in ["group:node", "pod:x", "container:x", "namespace:a-b"] {
            let scope: Scope = name.parse().unwrap();
            assert_eq!(scope.as_str(), name.replacen(':', "-", 1));
        }
        assert!("other:x".parse::<Scope>().is_err() && "node:x".parse::<Scope>().is_err());
        assert_eq!(
            "try1".parse::<Scope>().unwrap(),
            Scope::container("try1").unwrap()
        );
    }

    #[test]
    fn the_longest_name_of_a_scope_is_one_that_a_directory_can_have() {
        let id = |suffix: usize| format!("{}~+{}", "a".repeat(MAX_NAME), "b".repeat(suffix));
        let longest = Scope::container(&id(MAX_SUFFIX)).unwrap();
        assert!(longest.as_str().len() <= 255, "{longest}");
        assert!(Scope::container(&id(MAX_SUFFIX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn kubernetes_names_are_accepted(name in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?") {
            prop_assert!(Scope::namespace(&name).is_ok());
        }
    }
}
