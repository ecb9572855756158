//! The action `delete`: what containerd runs when a shim is gone.

use std::{fs, time::Duration};

use containerd_shim::Flags;
use containerd_shim_protos::{api::DeleteResponse, protobuf::Message};
use reaper_exec::{Engine, Executor, Target, engine};
use reaper_spec::{ContainerId, Exit, ExitStatus, Timestamp};
use reaper_state::StateStore;
use tokio::{runtime::Builder, time::timeout};

use super::{
    environment::{bundle, config, print},
    monitor_cgroup::remove_left,
    shim::Shim,
    socket::SocketPath,
};
use crate::{Error, Result, process::proto_time, sandbox};

/// containerd itself gives up after five seconds.
const LIMIT: Duration = Duration::from_secs(4);

pub(super) fn run<E, S>(shim: &Shim<E, S>, flags: &Flags) -> Result<()>
where
    E: Executor + 'static,
    S: StateStore + ?Sized + 'static,
{
    let id = ContainerId::new(flags.id.as_str())?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            operation: "make the runtime",
            source,
        })?;
    let bundle = bundle(flags)?;
    let deleted = runtime.block_on(async {
        let engine = shim.engine(&flags.namespace, config()?)?;
        let deleted = timeout(LIMIT, delete(&engine, &id)).await;
        if let Ok(Ok(_)) = deleted
            && let Err(error) = remove_left(&engine, &bundle, &flags.namespace, &flags.id).await
        {
            tracing::warn!(%id, %error, "the cgroup of a shim is left behind");
        }
        deleted.unwrap_or(Err(Error::Timeout {
            operation: "delete",
            after: LIMIT,
        }))
    });
    runtime.shutdown_background();
    let (pid, exit) = deleted?;
    // Its shim is gone, or serves the rest of the pod.
    if let Ok(address) = fs::read_to_string(bundle.join("address")) {
        SocketPath::from_address(&address).remove_dead()?;
    }
    let response = DeleteResponse {
        pid,
        exit_status: exit.status.code(),
        exited_at: proto_time(exit.at),
        ..DeleteResponse::default()
    };
    print(&response.write_to_bytes().map_err(|source| Error::Encode {
        message: "the answer to delete",
        source,
    })?)
}

/// Ends and removes what is left of a container, and says how it ended. It needs no live shim,
/// and it may be called again.
async fn delete<E, S>(engine: &Engine<E, S>, id: &ContainerId) -> Result<(u32, Exit)>
where
    E: Executor + 'static,
    S: StateStore + ?Sized + 'static,
{
    let record = engine.state(id).await.ok();
    let process = record.as_ref().and_then(|record| record.process.as_ref());
    let pid = process.map_or(0, |process| process.pid);
    if let Some(record) = &record {
        sandbox::remove_view(engine, record).await;
    }
    let exit = match engine.delete(id, true).await {
        Ok(exit) => exit,
        // Deleted before, or its creation was cut short before there was a record.
        Err(engine::Error::Store(reaper_state::Error::NotFound { .. })) => {
            engine.executor().delete(&Target::Init(id.clone())).await?
        }
        Err(error) => return Err(error.into()),
    };
    Ok((pid, exit.unwrap_or_else(unknown)))
}

fn unknown() -> Exit {
    let reason = "its end was not observed".to_owned();
    Exit::new(ExitStatus::Unknown { reason }, Timestamp::now())
}
