//! The contract of filesystem isolation.

use std::path::{Component, Path, PathBuf};

use reaper_spec::{ContainerId, CriAnnotations, DnsMode, ImageMode, Mount, OverlayConfig};
use serde::{Deserialize, Serialize};

use crate::{Error, RootfsMount, digest, rootless};

/// The state root whose ids need no distinction.
const DEFAULT_ROOT: &str = "/run/reaper";

/// What the processes of one container shall see. It is plain data: it crosses a socket from the
/// program that decides to the monitor that mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewRequest {
    /// Whose view.
    pub id: ContainerId,
    /// What tells the id from the same id elsewhere, see [`in_root`](Self::in_root).
    #[serde(default)]
    pub realm: Option<String>,
    /// The overlay's settings, the pod's wishes already applied.
    pub overlay: OverlayConfig,
    /// Whose `/etc/resolv.conf` and friends.
    pub dns: DnsMode,
    /// What becomes of the image.
    pub image: ImageMode,
    /// The image's root, for the image modes that use it.
    pub rootfs: Option<PathBuf>,
    /// What is to be mounted on `rootfs` for whoever uses it; empty where it has its content
    /// already. See [`mount_rootfs`](crate::mount_rootfs).
    pub rootfs_mounts: Vec<RootfsMount>,
    /// The volumes, in order.
    pub mounts: Vec<Mount>,
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
            realm: None,
            overlay: OverlayConfig::default(),
            dns: DnsMode::default(),
            image: ImageMode::default(),
            rootfs: None,
            rootfs_mounts: Vec::new(),
            mounts: Vec::new(),
            cwd,
            user: None,
            kubernetes_namespace: None,
            pod: None,
        }
    }

    /// The same for a container of the state root `root`, since ids are unique in one root only:
    /// overlays and mount points are the node's. The containers of `/run/reaper` (without root, of
    /// [`user_directory`](crate::user_directory)) need no distinction, those of `/run/reaper/ns/NAMESPACE` get the namespace's name, and all others a
    /// hash of their root.
    #[must_use]
    pub fn in_root(mut self, root: &Path) -> Self {
        self.realm = realm(root);
        self
    }

    /// A name of the container that is unique on the node: its id, or `ID~REALM`.
    pub fn unique_id(&self) -> String {
        match &self.realm {
            Some(realm) => format!("{}~{realm}", self.id),
            None => self.id.to_string(),
        }
    }

    /// The same, with what CRI annotations say of the pod.
    #[must_use]
    pub fn in_pod(mut self, cri: &CriAnnotations) -> Self {
        self.kubernetes_namespace.clone_from(&cri.sandbox_namespace);
        self.pod.clone_from(&cri.sandbox_id);
        self
    }
}

fn realm(root: &Path) -> Option<String> {
    let user = if rootless::is_needed() {
        rootless::user_directory().ok()
    } else {
        None
    };
    let default = user.as_deref().unwrap_or(Path::new(DEFAULT_ROOT));
    if root == default {
        return None;
    }
    let namespace = root.strip_prefix(default.join("ns")).ok();
    let mut parts = namespace.into_iter().flat_map(Path::components);
    if let (Some(Component::Normal(name)), None) = (parts.next(), parts.next())
        && let Some(name) = name.to_str().filter(|name| crate::scope::is_name(name))
    {
        return Some(name.to_owned());
    }
    // No name of a namespace begins like this.
    Some(format!("+{}", digest::of(root)))
}

/// Makes the views in which processes run.
///
/// It is called by a monitor: one process, one thread, in the host's mount namespace, one
/// container. So its methods may block, and a call never races another of the same process; it
/// does race the calls of other monitors, and must lock what they share.
///
/// # Contract
/// * [`prepare`](Self::prepare) fails closed: if the view cannot be made as asked, it is an error
///   that names what could not be done, and nothing of it is left behind.
/// * [`collect`](Self::collect) undoes what a `prepare` left whose monitor was killed before it
///   could call [`View::release`]. It is idempotent, and succeeds for an id that has nothing.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait FilesystemIsolation {
    /// Makes ready a view for one container. Called before the fork of its first process.
    ///
    /// # Errors
    /// The view cannot be made; the error names the step and the path.
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error>;

    /// Removes what a view of `request.id` left on the node when its monitor was killed.
    ///
    /// # Errors
    /// Something could not be removed; calling again continues.
    fn collect(&self, request: &ViewRequest) -> Result<(), Error>;

    /// Called when the container is deleted: removes what it kept beyond its end for people to
    /// look at, such as an overlay that nobody else shares. Called for a pod's sandbox too, which
    /// may have had no view: then what was kept for the pod is removed. What somebody still uses
    /// goes with its last user. Idempotent, and includes [`collect`](Self::collect).
    ///
    /// # Errors
    /// Something could not be removed; calling again continues.
    fn forget(&self, request: &ViewRequest) -> Result<(), Error> {
        self.collect(request)
    }

    /// What there is to do on the node when a container is gone for good and nobody waits for it
    /// any more, for example to remove overlays that were not used for long. `None` is nothing.
    /// It may take long: it is run in a process of its own, which may be killed at any time.
    fn housekeeping(&self, request: &ViewRequest) -> Option<Housekeeping> {
        let _ = request;
        None
    }
}

/// Work that nobody waits for, see [`FilesystemIsolation::housekeeping`].
pub type Housekeeping = Box<dyn FnOnce() -> Result<(), Error>>;

/// The view of one container.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait View {
    /// Moves the calling process into the view. Called in the forked child, as root and still
    /// single threaded: for the container's first process, and again for each exec'd one, which
    /// has to see exactly the same mounts.
    ///
    /// The child's working directory and root are in the view afterwards.
    ///
    /// # Errors
    /// The step that failed. The child then exits without running anything.
    fn enter(&self, first: bool) -> Result<(), Error>;

    /// Called in the monitor once the first process has entered, with its pid. A view keeps here
    /// what it needs for later calls of `enter`, for example a descriptor of
    /// `/proc/PID/ns/mnt`.
    ///
    /// # Errors
    /// The namespace could not be kept.
    fn entered(&mut self, pid: u32) -> Result<(), Error>;

    /// Environment variables that the view adds to the container's processes (`KEY=VALUE`).
    fn environment(&self) -> Vec<String> {
        Vec::new()
    }

    /// What people should know of the view, one sentence each: what of the node could not be
    /// overlaid and is read-only, or that the node has changed below an overlay.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Gives back what the view holds on the node. Called in the monitor when all the container's
    /// processes have ended. Idempotent.
    ///
    /// # Errors
    /// Something could not be removed; calling again continues.
    fn release(&mut self) -> Result<(), Error>;
}
