//! What happens to tasks, as containerd is told.

use containerd_shim_protos::{
    events::task::{
        TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
        TaskResumed, TaskStart,
    },
    protobuf::{self, MessageFull, well_known_types::any::Any},
    topics,
};

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "each is the event of this name in containerd's API"
)]
pub enum Event {
    Create(TaskCreate),
    Start(TaskStart),
    ExecAdded(TaskExecAdded),
    ExecStarted(TaskExecStarted),
    Paused(TaskPaused),
    Resumed(TaskResumed),
    Oom(TaskOOM),
    Exit(TaskExit),
    Delete(TaskDelete),
}

/// Takes the events of tasks.
///
/// # Contract
/// * **In order.** Events reach their reader in the order of the calls.
/// * **At once.** A call does not wait for the reader: events that cannot be passed on yet are
///   kept.
pub trait Events: Send + Sync {
    /// Takes one event.
    fn publish(&self, event: Event);

    /// A client has just called the shim, so containerd is likely to be reachable: try again to
    /// pass on what could not be.
    fn retry_now(&self) {}
}

impl Event {
    /// The topic under which containerd files it.
    pub fn topic(&self) -> &'static str {
        match self {
            Self::Create(_) => topics::TASK_CREATE_EVENT_TOPIC,
            Self::Start(_) => topics::TASK_START_EVENT_TOPIC,
            Self::ExecAdded(_) => topics::TASK_EXEC_ADDED_EVENT_TOPIC,
            Self::ExecStarted(_) => topics::TASK_EXEC_STARTED_EVENT_TOPIC,
            Self::Paused(_) => topics::TASK_PAUSED_EVENT_TOPIC,
            Self::Resumed(_) => topics::TASK_RESUMED_EVENT_TOPIC,
            Self::Oom(_) => topics::TASK_OOM_EVENT_TOPIC,
            Self::Exit(_) => topics::TASK_EXIT_EVENT_TOPIC,
            Self::Delete(_) => topics::TASK_DELETE_EVENT_TOPIC,
        }
    }

    /// The event as it travels.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn to_any(&self) -> protobuf::Result<Any> {
        match self {
            Self::Create(event) => pack(event),
            Self::Start(event) => pack(event),
            Self::ExecAdded(event) => pack(event),
            Self::ExecStarted(event) => pack(event),
            Self::Paused(event) => pack(event),
            Self::Resumed(event) => pack(event),
            Self::Oom(event) => pack(event),
            Self::Exit(event) => pack(event),
            Self::Delete(event) => pack(event),
        }
    }
}

/// containerd's `typeurl` knows types by their bare names, without protobuf's host in front.
pub(crate) fn pack<M: MessageFull>(message: &M) -> protobuf::Result<Any> {
    Ok(Any {
        type_url: M::descriptor().full_name().to_owned(),
        value: message.write_to_bytes()?,
        ..Any::default()
    })
}
