//! What a container shall see, as data.

use std::path::{Component, Path, PathBuf};

use reaper_spec::{
    AllowedMounts, ContainerId, CriAnnotations, DEFAULT_STATE_ROOT, Device, DnsMode,
    FileRestrictions, ImageMode, Mount, OverlayConfig, OverlayScope, RootPropagation, path_hash,
};
use serde::{Deserialize, Serialize};

use super::{
    error::Error,
    scope::{Scope, is_name},
    user::{Privilege, user_directory},
};

/// What the processes of one container shall see. It is plain data: it crosses a socket from the
/// program that decides to the monitor that mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ViewRequest {
    /// Whose view.
    pub id: ContainerId,
    /// What tells the id from the same id elsewhere, see
    /// [`with_state_root`](Self::with_state_root).
    #[serde(default, rename = "realm")]
    pub id_suffix: Option<String>,
    /// The overlay's settings, what the pod asks for already applied.
    pub overlay: OverlayConfig,
    /// Whose `/etc/resolv.conf` and friends.
    pub dns: DnsMode,
    /// What becomes of the image.
    pub image: ImageMode,
    /// The image's root, for the image modes that use it.
    pub rootfs: Option<PathBuf>,
    /// What has to be mounted on `rootfs` before it is used; empty where it has its content
    /// already. See [`mount_rootfs`](crate::mount_rootfs).
    pub rootfs_mounts: Vec<RootfsMount>,
    /// The volumes, in order.
    pub mounts: Vec<Mount>,
    /// What of the host `mounts` may show, as the node's policy says. It is checked of what was opened for
    /// them, so that a path that is led elsewhere after the policy was asked is not mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_mounts: Vec<AllowedMounts>,
    /// What of the view is read-only or hidden, for this container alone.
    #[serde(default)]
    pub restrictions: FileRestrictions,
    /// The devices that the container has, also those that the host's `/dev` has already.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// The propagation of its root and all below but its volumes; without it is the host's slave.
    #[serde(default)]
    pub root_propagation: Option<RootPropagation>,
    /// Whether it has mounts of its own in any case, since other programs than its processes mount in it:
    /// hooks. Without, a view that changes nothing may be the host's own mount namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_mounts: bool,
    /// Whether its processes are in another network than the host's: they see the network's own part of
    /// `/sys`. Who enters the view is in that network already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_network: bool,
    /// Whether its processes are in another pid namespace than the host's: they see a `/proc` of that one. Who
    /// enters the view is in that namespace already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_pids: bool,
    /// The working directory, made where the view lacks it.
    pub cwd: PathBuf,
    /// The uid and gid that its first process becomes, where it becomes others. Only a view without
    /// root looks at it: there the caller gets these numbers, and no others exist.
    #[serde(default)]
    pub user: Option<(u32, u32)>,
    /// The pod's Kubernetes namespace, for the scope `namespace`.
    pub kubernetes_namespace: Option<String>,
    /// The pod's sandbox id, for the scope `pod`.
    pub pod: Option<String>,
}

impl ViewRequest {
    /// A view for `id` that wants no volumes, with default settings.
    pub fn new(id: ContainerId, cwd: PathBuf) -> Self {
        Self {
            id,
            id_suffix: None,
            overlay: OverlayConfig::default(),
            dns: DnsMode::default(),
            image: ImageMode::default(),
            rootfs: None,
            rootfs_mounts: Vec::new(),
            mounts: Vec::new(),
            allowed_mounts: Vec::new(),
            restrictions: FileRestrictions::default(),
            devices: Vec::new(),
            root_propagation: None,
            own_mounts: false,
            own_network: false,
            own_pids: false,
            cwd,
            user: None,
            kubernetes_namespace: None,
            pod: None,
        }
    }

    /// With an overlay.
    #[must_use]
    pub fn with_overlay(mut self, overlay: OverlayConfig) -> Self {
        self.overlay = overlay;
        self
    }

    /// With the pod's or the host's files for the resolver.
    #[must_use]
    pub fn with_dns(mut self, dns: DnsMode) -> Self {
        self.dns = dns;
        self
    }

    /// With what becomes of the image.
    #[must_use]
    pub fn with_image(mut self, image: ImageMode) -> Self {
        self.image = image;
        self
    }

    /// With the image's root filesystem.
    #[must_use]
    pub fn with_rootfs(mut self, rootfs: impl Into<Option<PathBuf>>) -> Self {
        self.rootfs = rootfs.into();
        self
    }

    /// With volumes.
    #[must_use]
    pub fn with_mounts(mut self, mounts: Vec<Mount>) -> Self {
        self.mounts = mounts;
        self
    }

    /// With restrictions.
    #[must_use]
    pub fn with_restrictions(mut self, restrictions: FileRestrictions) -> Self {
        self.restrictions = restrictions;
        self
    }

    /// With devices.
    #[must_use]
    pub fn with_devices(mut self, devices: Vec<Device>) -> Self {
        self.devices = devices;
        self
    }

    /// With the uid and gid of the process.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<Option<(u32, u32)>>) -> Self {
        self.user = user.into();
        self
    }

    /// The same for a container of the state root `root`, since ids are unique in one root only:
    /// overlays and mount points are the host's. The containers of `/run/reaper` (without root, of
    /// [`user_directory`](crate::user_directory)) need no distinction, those of
    /// `/run/reaper/ns/NAMESPACE` get the namespace's name, and all others a hash of their root.
    #[must_use]
    pub fn with_state_root(mut self, root: &Path) -> Self {
        self.id_suffix = id_suffix(root);
        self
    }

    /// A name of the container that is unique on the node: its id, or `ID~SUFFIX`.
    pub fn unique_id(&self) -> String {
        match &self.id_suffix {
            Some(suffix) => format!("{}~{suffix}", self.id),
            None => self.id.to_string(),
        }
    }

    /// The same, with what CRI annotations say of the pod.
    #[must_use]
    pub fn with_pod(mut self, cri: &CriAnnotations) -> Self {
        self.kubernetes_namespace.clone_from(&cri.sandbox_namespace);
        self.pod.clone_from(&cri.sandbox_id);
        self
    }
}

fn id_suffix(root: &Path) -> Option<String> {
    let user = match Privilege::of_process() {
        Privilege::Root => None,
        Privilege::User => user_directory().ok(),
    };
    let default = user.as_deref().unwrap_or(Path::new(DEFAULT_STATE_ROOT));
    if root == default {
        return None;
    }
    let namespace = root.strip_prefix(default.join("ns")).ok();
    let mut parts = namespace.into_iter().flat_map(Path::components);
    if let (Some(Component::Normal(name)), None) = (parts.next(), parts.next())
        && let Some(name) = name.to_str().filter(|name| is_name(name))
    {
        return Some(name.to_owned());
    }
    // No name of a namespace begins like this.
    Some(format!("+{}", path_hash(root)))
}

/// One of the mounts that make an image's root filesystem, on top of each other. It is what
/// containerd's snapshotters name, and plain data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsMount {
    /// The filesystem's type, `bind` for a bind mount.
    #[serde(rename = "kind")]
    pub typ: String,
    /// What is mounted: a path, or a name that the filesystem ignores.
    pub source: String,
    /// Options as mount(8) takes them; what is not known is the filesystem's own.
    pub options: Vec<String>,
}

impl Scope {
    /// The scope that a request belongs to. Where the request does not say what its scope is made
    /// of (a pod's scope without a pod), it is the container's own: more isolated, never less.
    /// The image mode `beneath` needs an overlay of the container's own too.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn of(request: &ViewRequest) -> Result<Self, Error> {
        let own = || Self::container(&request.unique_id());
        if request.image == ImageMode::Lower {
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

    /// The scope that goes when `request`'s container is deleted: its own, or its pod's where it is
    /// the pod's sandbox.
    ///
    /// # Errors
    /// [`Error::ScopeName`].
    pub fn deleted_with(request: &ViewRequest) -> Result<Option<Self>, Error> {
        let scope = Self::of(request)?;
        let is_sandbox = request.pod.as_deref() == Some(request.id.as_str());
        let its_pods = is_sandbox && scope.as_str().starts_with("pod-");
        Ok((scope.is_container() || its_pods).then_some(scope))
    }
}

#[cfg(test)]
mod tests {
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
        beneath.image = ImageMode::Lower;
        assert_eq!(Scope::of(&beneath).unwrap(), own);
    }

    #[test]
    fn scope_of_same_id_differs_between_state_roots() {
        let of = |root: &str| {
            let request = request(OverlayScope::Container).with_state_root(Path::new(root));
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
    fn deleted_with_returns_own_scope_or_that_of_sandbox() {
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
    fn the_suffix_of_an_id_keeps_its_name_on_the_wire() {
        let request =
            request(OverlayScope::Node).with_state_root(Path::new("/run/reaper/ns/k8s.io"));
        let wire = serde_json::to_value(&request).unwrap();
        assert_eq!(wire["realm"], "k8s.io");
        assert_eq!(
            serde_json::from_value::<ViewRequest>(wire).unwrap(),
            request
        );
    }
}
