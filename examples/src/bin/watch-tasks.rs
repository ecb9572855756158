//! Prints what happens to the containers of a containerd, whatever runtime they have, a line for
//! each event: `watch-tasks /run/containerd/containerd.sock k8s.io`.
//!
//! Shims publish these events, in order for each container: create, start, exits of exec'd
//! processes, exit of the container's own, delete.

use std::error::Error;

use containerd_client::{
    connect,
    events::{TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskStart},
    services::v1::{SubscribeRequest, events_client::EventsClient},
};
use prost::Message as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(namespace)) = (arguments.next(), arguments.next()) else {
        return Err("usage: watch-tasks SOCKET NAMESPACE".into());
    };
    let filters = vec![format!("namespace=={namespace}")];
    let mut events = EventsClient::new(connect(socket).await?)
        .subscribe(SubscribeRequest { filters })
        .await?
        .into_inner();
    // The end is containerd's own.
    while let Some(envelope) = events.message().await? {
        let event = envelope.event.unwrap_or_default();
        if let Some(line) = describe(&envelope.topic, &event.value)? {
            println!("{line}");
        }
    }
    Ok(())
}

/// What an event of a task says; of others nothing.
fn describe(topic: &str, value: &[u8]) -> Result<Option<String>, prost::DecodeError> {
    Ok(Some(match topic {
        "/tasks/create" => {
            let event = TaskCreate::decode(value)?;
            format!("{} created, pid {}", event.container_id, event.pid)
        }
        "/tasks/start" => {
            let event = TaskStart::decode(value)?;
            format!("{} started", event.container_id)
        }
        "/tasks/exec-added" => {
            let event = TaskExecAdded::decode(value)?;
            format!("{} exec {} added", event.container_id, event.exec_id)
        }
        "/tasks/exec-started" => {
            let event = TaskExecStarted::decode(value)?;
            format!(
                "{} exec {} started, pid {}",
                event.container_id, event.exec_id, event.pid
            )
        }
        // The id is the exec's, or the container's own.
        "/tasks/exit" => {
            let event = TaskExit::decode(value)?;
            let who = match event.id == event.container_id {
                true => event.container_id,
                false => format!("{} exec {}", event.container_id, event.id),
            };
            format!("{who} ended with {}", event.exit_status)
        }
        "/tasks/delete" => format!("{} deleted", TaskDelete::decode(value)?.container_id),
        _ => return Ok(None),
    }))
}
