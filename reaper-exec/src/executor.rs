//! The contract of running processes.

mod config;
mod error;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use reaper_overlay::ViewRequest;
use reaper_spec::{ConsoleSize, ContainerId, ExecId, Exit, ProcessIdentity, Resources};

pub use self::{
    config::{ContainerConfig, Inherited, MonitorOptions},
    error::{Error, Result},
    values::{
        ContainerState, CreateRequest, CreatedProcess, ExecRequest, ProcessInfo, Stats, Target,
    },
};
use crate::signal::Signal;

/// Runs the processes of containers.
///
/// # Contract
/// * **Create** does everything short of the user's program: when it returns, the process exists,
///   with its identity, streams, credentials and view of the filesystem, and waits for its start.
/// * **Start** returns when the program was executed, or fails with the reason why it was not.
/// * **Wait** is a latch: any number of waiters, before and after the end. Waiting for something
///   that never started waits for its start, its kill or its deletion.
/// * **Ends are durable**: an exit that `wait` returned is what [`state`](Self::state) reports
///   from then on, from any process, until [`delete`](Self::delete).
/// * **Order**: exits of exec'd processes are seen before the exit of init, and with init
///   everything that it started has ended.
/// * **Cancellation**: dropping a returned future abandons the answer, not the operation.
/// * **Killing** a process that is being killed, and whose exit is not published yet, succeeds.
/// * Calls for different containers don't wait for each other, and none has the calling thread wait for a
///   container, a monitor or a lock. Small files of the container may be read, written and removed on it.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Executor: Send + Sync {
    /// Creates a container with its init process, which waits for its start.
    ///
    /// # Errors
    /// [`Error::Setup`] with the step that failed, or [`Error::Execve`] where the program is
    /// looked for already now; nothing is left behind then.
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess>;

    /// Adds a process to a running container. It waits for its start. What its spec leaves out is the
    /// container's, see [`ProcessSpec::inherit`](reaper_spec::ProcessSpec::inherit).
    ///
    /// One that was not started when the executor is dropped may be killed, since no other client
    /// knows its id. One that was started goes on.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] for an exec id in use, [`Error::Status`] unless the container is
    /// running, [`Error::Setup`].
    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess>;

    /// Executes the program of a created process, and returns the process's identity.
    ///
    /// # Errors
    /// [`Error::Execve`] if the program cannot be executed: the process has then ended, as
    /// [`wait`](Self::wait) reports too. [`Error::Status`] if it was started already.
    async fn start(&self, target: &Target) -> Result<ProcessIdentity>;

    /// Sends a signal to a process, or to everything in its container or exec with `all`.
    ///
    /// # Errors
    /// [`Error::Ended`] if the process has ended; [`Error::NotFound`].
    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()>;

    /// Sends a signal to the process group of a process, as a terminal does for a key such as
    /// Ctrl-C. An executor that cannot do so signals the process alone.
    ///
    /// # Errors
    /// As for [`kill`](Self::kill).
    async fn kill_group(&self, target: &Target, signal: Signal) -> Result<()> {
        self.kill(target, signal, false).await
    }

    /// Waits for the end of a process.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn wait(&self, target: &Target) -> Result<Exit>;

    /// Waits until the kernel has killed more than `seen` processes of the container for lack of
    /// memory, or the container has stopped, and returns how many it has killed. By then all kills
    /// are counted, so it is answered before [`wait`](Self::wait) is.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unsupported`] from an executor that does not know, as all that
    /// do not implement it.
    async fn oom_kills(&self, id: &ContainerId, seen: u64) -> Result<u64> {
        let _ = (id, seen);
        Err(Error::Unsupported {
            operation: "watch for lack of memory".to_owned(),
            reason: "the executor does not know of it".to_owned(),
        })
    }

    /// Changes the limits of a container. What `resources` does not name stays as it is.
    ///
    /// # Errors
    /// [`Error::Setup`] if one of them cannot be set: it is named, and none is changed.
    /// [`Error::Status`] if it has stopped; [`Error::NotFound`]. [`Error::Unsupported`] where limits
    /// are not enforced, and from an executor that does not implement it.
    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        let _ = (id, resources);
        Err(Error::Unsupported {
            operation: "update".to_owned(),
            reason: "the executor does not limit resources".to_owned(),
        })
    }

    /// Changes the size of a process's terminal. Without a terminal it does nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()>;

    /// Ends a process's input once what is buffered was read. Idempotent; remembered before the
    /// start.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn close_stdin(&self, target: &Target) -> Result<()>;

    /// Freezes a container: none of its processes runs until it is [resumed](Self::resume). It can be
    /// killed meanwhile.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the host can't; [`Error::Status`] unless it is running;
    /// [`Error::NotFound`].
    async fn pause(&self, id: &ContainerId) -> Result<()>;

    /// Thaws a container.
    ///
    /// # Errors
    /// [`Error::Status`] unless it is paused; [`Error::NotFound`].
    async fn resume(&self, id: &ContainerId) -> Result<()>;

    /// The processes in a container now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>>;

    /// What a container uses now.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn stats(&self, id: &ContainerId) -> Result<Stats>;

    /// The state of a container. If its monitor was killed, this kills what is left of it, and
    /// records the exit.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the executor has no trace of it.
    async fn state(&self, id: &ContainerId) -> Result<ContainerState>;

    /// Forgets a process that has ended, and frees all that it holds: streams, and for init the
    /// monitor, the cgroup, the view and the files in its folder.
    /// Deleting what does not exist any more succeeds with `None`.
    ///
    /// # Errors
    /// [`Error::Status`] if it has not ended.
    async fn delete(&self, target: &Target) -> Result<Option<Exit>>;

    /// Removes what the views of the filesystem keep for `view.id`, which had no process of this
    /// executor's: a pod's sandbox, for which an overlay may be kept that only the pod's
    /// containers share. Idempotent. An executor without views does nothing.
    ///
    /// # Errors
    /// [`Error::Setup`] if something could not be removed.
    async fn remove_view(&self, view: &ViewRequest) -> Result<()> {
        let _ = view;
        Ok(())
    }
}

#[async_trait]
impl<T: Executor + ?Sized> Executor for Arc<T> {
    async fn create(&self, request: CreateRequest) -> Result<CreatedProcess> {
        (**self).create(request).await
    }
    async fn exec(
        &self,
        id: &ContainerId,
        exec: &ExecId,
        request: ExecRequest,
    ) -> Result<CreatedProcess> {
        (**self).exec(id, exec, request).await
    }
    async fn start(&self, target: &Target) -> Result<ProcessIdentity> {
        (**self).start(target).await
    }
    async fn kill(&self, target: &Target, signal: Signal, all: bool) -> Result<()> {
        (**self).kill(target, signal, all).await
    }
    async fn kill_group(&self, target: &Target, signal: Signal) -> Result<()> {
        (**self).kill_group(target, signal).await
    }
    async fn wait(&self, target: &Target) -> Result<Exit> {
        (**self).wait(target).await
    }
    async fn oom_kills(&self, id: &ContainerId, seen: u64) -> Result<u64> {
        (**self).oom_kills(id, seen).await
    }
    async fn update(&self, id: &ContainerId, resources: &Resources) -> Result<()> {
        (**self).update(id, resources).await
    }
    async fn resize_pty(&self, target: &Target, size: ConsoleSize) -> Result<()> {
        (**self).resize_pty(target, size).await
    }
    async fn close_stdin(&self, target: &Target) -> Result<()> {
        (**self).close_stdin(target).await
    }
    async fn pause(&self, id: &ContainerId) -> Result<()> {
        (**self).pause(id).await
    }
    async fn resume(&self, id: &ContainerId) -> Result<()> {
        (**self).resume(id).await
    }
    async fn pids(&self, id: &ContainerId) -> Result<Vec<ProcessInfo>> {
        (**self).pids(id).await
    }
    async fn stats(&self, id: &ContainerId) -> Result<Stats> {
        (**self).stats(id).await
    }
    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        (**self).state(id).await
    }
    async fn delete(&self, target: &Target) -> Result<Option<Exit>> {
        (**self).delete(target).await
    }
    async fn remove_view(&self, view: &ViewRequest) -> Result<()> {
        (**self).remove_view(view).await
    }
}
