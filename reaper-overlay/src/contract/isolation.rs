//! The contract of filesystem isolation.

use super::{error::Error, request::ViewRequest};

/// Makes the views in which processes run.
///
/// It is called by a monitor: one process, one thread, in the host's mount namespace, one
/// container. So its methods may block, and a call never races another of the same process; it
/// does race the calls of other monitors, and must lock what they share.
///
/// # Contract
/// * [`prepare`](Self::prepare) fails closed: if the view cannot be made as asked, it is an error
///   that names what could not be done, and nothing of it is left behind.
/// * [`cleanup`](Self::cleanup) undoes what a `prepare` left whose monitor was killed before it
///   could call [`View::release`]. It is idempotent, and succeeds for an id that has nothing.
#[cfg_attr(feature = "mock", mockall::automock)]
pub trait FilesystemIsolation {
    /// Makes ready a view for one container. Called before the fork of its first process.
    ///
    /// # Errors
    /// The view cannot be made; the error names the step and the path.
    fn prepare(&self, request: &ViewRequest) -> Result<Box<dyn View>, Error>;

    /// Removes what a view of `request.id` left on the host when its monitor was killed.
    ///
    /// # Errors
    /// Something could not be removed; calling again continues.
    fn cleanup(&self, request: &ViewRequest) -> Result<(), Error>;

    /// Called when the container is deleted: removes what was kept beyond its end to be looked at,
    /// such as an overlay that no other container shares. Called for a pod's sandbox too, which may
    /// have had no view: then what was kept for the pod is removed. What another container uses is
    /// removed with its last user. Idempotent, and includes [`cleanup`](Self::cleanup).
    ///
    /// # Errors
    /// Something could not be removed; calling again continues.
    fn remove(&self, request: &ViewRequest) -> Result<(), Error> {
        self.cleanup(request)
    }

    /// What there is to do on the host once a container is deleted and its caller has the answer,
    /// for example to remove overlays that were not used for long. `None` is nothing. It may take
    /// long: it is run in a process of its own, which may be killed at any time.
    fn gc(&self, request: &ViewRequest) -> Option<GarbageCollection> {
        let _ = request;
        None
    }
}

/// Work that no caller waits for, see [`FilesystemIsolation::gc`].
pub type GarbageCollection = Box<dyn FnOnce() -> Result<(), Error>>;

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
    fn enter_init(&self) -> Result<(), Error>;

    /// The same for each exec'd process, which has to see exactly the same mounts.
    ///
    /// # Errors
    /// The step that failed. The child then exits without running anything.
    fn enter_exec(&self) -> Result<(), Error>;

    /// Called in the monitor once the first process has entered, with its pid. A view keeps here
    /// what it needs for later calls of [`enter_exec`](Self::enter_exec), for example a descriptor
    /// of `/proc/PID/ns/mnt`.
    ///
    /// # Errors
    /// The namespace could not be kept.
    fn keep_namespace(&mut self, pid: u32) -> Result<(), Error>;

    /// Environment variables that the view adds to the container's processes (`KEY=VALUE`).
    fn environment(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether a quota of a project limits what the container writes. The kernel lets the owner of a file change
    /// its project, so who runs the container's processes keeps them from that.
    fn is_limited_by_project(&self) -> bool {
        false
    }

    /// What an administrator should know of the view, one sentence each: what of the host could not
    /// be overlaid and is read-only, or that the host has changed below an overlay.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Releases what the view holds on the host. Called in the monitor when all the container's
    /// processes have ended. Idempotent.
    ///
    /// # Errors
    /// Something could not be removed; calling again continues.
    fn release(&mut self) -> Result<(), Error>;

    /// Called instead of [`release`](Self::release) if the container could not be created: removes
    /// as well what was made for it alone and would be kept beyond its end. Idempotent.
    ///
    /// # Errors
    /// Something could not be removed; calling again continues.
    fn undo(&mut self) -> Result<(), Error> {
        self.release()
    }
}
