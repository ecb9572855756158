//! Who shares an overlay, and where its files are.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use reaper_spec::{ImageMode, OverlayScope};

use crate::{Error, ViewRequest};

/// The longest name of a scope that is accepted, without its kind.
const MAX_NAME: usize = 128;

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
    /// [unique id](ViewRequest::unique_id) `ID~REALM`.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn container(id: &str) -> Result<Self, Error> {
        let (plain, realm) = id.split_once('~').unwrap_or((id, "_"));
        if is_name(plain) && is_name(realm.strip_prefix('+').unwrap_or(realm)) {
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

    /// The scope that a request belongs to. Where the request does not say what its scope is made
    /// of (a pod's scope without a pod), it is the container's own: more isolated, never less.
    /// The image mode `beneath` needs an overlay of the container's own too.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn of(request: &ViewRequest) -> Result<Self, Error> {
        let own = || Self::container(&request.unique_id());
        if request.image == ImageMode::Beneath {
            return own();
        }
        match &request.overlay.scope {
            OverlayScope::Node => Ok(Self::node()),
            OverlayScope::Namespace => request
                .kubernetes_namespace
                .as_deref()
                .map_or_else(own, Self::namespace),
            OverlayScope::Pod => request.pod.as_deref().map_or_else(own, Self::pod),
            OverlayScope::Group(name) => Self::group(name),
            // `Container`, and kinds that this version does not know: the safest.
            _ => own(),
        }
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

    /// The container that it belongs to, by its [unique id](ViewRequest::unique_id).
    pub fn container_id(&self) -> Option<&str> {
        self.0.strip_prefix("container-")
    }

    /// The scope that goes when `request`'s container is deleted: its own, or its pod's where it is
    /// the pod's sandbox.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn deleted_with(request: &ViewRequest) -> Result<Option<Self>, Error> {
        let scope = Self::of(request)?;
        let is_sandbox = request.pod.as_deref() == Some(request.id.as_str());
        let its_pods = is_sandbox && scope.0.starts_with("pod-");
        Ok((scope.is_container() || its_pods).then_some(scope))
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

    /// Reads the name that [`Scope::as_str`] gives; a bare name that is of no kind is a
    /// container's.
    fn from_str(name: &str) -> Result<Self, Error> {
        if name == "node" {
            return Ok(Self::node());
        }
        if let Some(id) = name.strip_prefix("container-") {
            return Self::container(id);
        }
        for kind in ["namespace", "pod", "group"] {
            if let Some(rest) = name
                .strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix('-'))
            {
                return Self::named(kind, rest);
            }
        }
        Self::container(name)
    }
}

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
    pub(crate) fn forgotten(&self) -> PathBuf {
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
    use reaper_spec::ContainerId;

    use super::*;

    fn request(scope: OverlayScope) -> ViewRequest {
        let mut request = ViewRequest::new(ContainerId::new("c1").unwrap(), "/".into());
        request.overlay.scope = scope;
        request
    }

    #[test]
    fn a_request_without_a_pod_gets_more_isolation_not_less() {
        let own = Scope::container("c1").unwrap();
        assert_eq!(Scope::of(&request(OverlayScope::Pod)).unwrap(), own);
        assert_eq!(Scope::of(&request(OverlayScope::Namespace)).unwrap(), own);
        assert_eq!(
            Scope::of(&request(OverlayScope::Node)).unwrap(),
            Scope::node()
        );
        let mut beneath = request(OverlayScope::Node);
        beneath.image = ImageMode::Beneath;
        assert_eq!(Scope::of(&beneath).unwrap(), own);
    }

    #[test]
    fn the_same_id_elsewhere_is_another_container() {
        let of = |root: &str| {
            let request = request(OverlayScope::Container).in_root(Path::new(root));
            Scope::of(&request).unwrap()
        };
        assert_eq!(of("/run/reaper").as_str(), "container-c1");
        assert_eq!(of("/run/reaper/ns/k8s.io").as_str(), "container-c1~k8s.io");
        let elsewhere = of("/srv/state");
        assert!(elsewhere.as_str().starts_with("container-c1~+"));
        assert_ne!(elsewhere, of("/srv/state/ns/k8s.io"));
        assert_ne!(of("/run/reaper/ns/a/b"), of("/run/reaper/ns/b"));
        for scope in [elsewhere, of("/run/reaper/ns/k8s.io")] {
            assert_eq!(scope.as_str().parse::<Scope>().unwrap(), scope);
            let bare = scope.container_id().unwrap();
            assert_eq!(bare.parse::<Scope>().unwrap(), scope);
        }
        for wrong in ["c1~", "c1~a/b", "c1~a~b", "c1~+", "~a"] {
            assert!(Scope::container(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_goes_with_a_container_is_its_own_scope_or_that_of_its_pod() {
        let mut request = request(OverlayScope::Pod);
        request.pod = Some("p1".to_owned());
        assert_eq!(Scope::deleted_with(&request).unwrap(), None);
        request.pod = Some("c1".to_owned());
        let pod = Scope::pod("c1").unwrap();
        assert_eq!(Scope::deleted_with(&request).unwrap(), Some(pod));
        request.overlay.scope = OverlayScope::Group("c1".to_owned());
        assert_eq!(Scope::deleted_with(&request).unwrap(), None);
        request.overlay.scope = OverlayScope::Container;
        let own = Scope::container("c1").unwrap();
        assert_eq!(Scope::deleted_with(&request).unwrap(), Some(own));
    }

    #[test]
    fn kinds_do_not_collide() {
        let group = Scope::group("node").unwrap();
        let pod = Scope::pod("x").unwrap();
        assert_ne!(group, Scope::node());
        assert_ne!(pod, Scope::namespace("x").unwrap());
        assert_eq!(pod.as_str().parse::<Scope>().unwrap(), pod);
        assert_eq!(
            "try1".parse::<Scope>().unwrap(),
            Scope::container("try1").unwrap()
        );
    }

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

        #[test]
        fn kubernetes_names_are_accepted(name in "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?") {
            prop_assert!(Scope::namespace(&name).is_ok());
        }
    }
}
