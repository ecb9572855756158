//! The life of the container of a trial, step by step.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    sync::{Arc, Mutex},
};

use reaper_exec::{Error as ExecutorError, Executor, Signal, Target, engine::Error as EngineError};
use reaper_overlay::Overlays;
use reaper_spec::{Config, ContainerId, ExecId, ExitStatus, ImageMode, Status};
use reaper_state::{Record, StateRoot};

use super::{
    left,
    place::{Place, mounts_below},
    plan::Plan,
    process::FINE,
    steps::{Failure, Steps, blocking},
};
use crate::{backends, commands::CommandContext, error::Error, host::ContainerEngine};

type Result<T, E = Failure> = std::result::Result<T, E>;

/// One trial: where it is made, and the node's configuration with other folders.
pub(super) struct Trial {
    place: Arc<Place>,
    config: Config,
    /// Whether an OCI runtime makes the container.
    with_runtime: bool,
}

impl Trial {
    pub(super) fn new(place: Place, call: &CommandContext) -> Self {
        let mut config = call.config.clone();
        // What Reaper has mounted below its base is hidden from all views but that of the trial, whose
        // base is another one. Pins and unbindable mounts can't even be shown.
        let own = mounts_below(&config.overlay.base);
        config.overlay.unprotected.extend(own);
        config.overlay.base = place.overlay();
        config.state_root = place.state();
        // The trial has none.
        config.image = ImageMode::None;
        Self {
            place: Arc::new(place),
            with_runtime: !call.containers.executor().defers_streams(),
            config,
        }
    }

    /// Does all steps, up to the first that fails.
    pub(super) async fn run(self: Arc<Self>, steps: Arc<Mutex<Steps>>) {
        // What failed is in the steps.
        let _ = self.live(&steps).await;
    }

    async fn live(&self, steps: &Mutex<Steps>) -> Result<(), ()> {
        let over_overlay = self.config.overlay.enabled && !self.with_runtime;
        let make = if over_overlay {
            Steps::over_overlay(steps);
            "make a scope and a container in it"
        } else {
            "make a container"
        };
        let prepare = async {
            let (new, plan) = Plan::make(&self.config, &self.place, self.with_runtime)?;
            Ok((self.containers()?, new, plan))
        };
        let (containers, new, plan) = Steps::step(steps, "prepare a container", prepare).await?;
        let record = Steps::step(steps, make, create(&containers, new)).await?;
        let id = &record.id;
        Steps::step(steps, "start the container", start(&containers, id)).await?;
        let output = plan.output.try_clone();
        Steps::step(steps, "see the container run", fine(output)).await?;
        let exec = exec(&containers, id, &plan);
        Steps::step(steps, "execute a second process in the container", exec).await?;
        if let Some(written) = &plan.written {
            let stays = async { left::not_on_the_node(written) };
            Steps::step(steps, "keep a write off this machine", stays).await?;
        }
        pause(steps, &containers, id).await?;
        Steps::step(steps, "kill the container", kill(&containers, id)).await?;
        let delete = async { Ok(containers.delete(id, false).await.map(drop)?) };
        Steps::step(steps, "delete the container", delete).await?;
        if over_overlay {
            Steps::step(steps, "remove the scope", self.remove_scopes()).await?;
        }
        let place = Arc::clone(&self.place);
        let look = blocking(move || left::nothing(&place, &record));
        Steps::step(steps, "leave nothing behind", look).await
    }

    fn containers(&self) -> Result<ContainerEngine> {
        Ok(backends::open(
            StateRoot::new(self.place.state()),
            &self.config,
        )?)
    }

    async fn remove_scopes(&self) -> Result<()> {
        let overlays = Overlays::new(&self.config.overlay);
        blocking(move || {
            for info in overlays.list()? {
                overlays.remove(&info.scope)?;
            }
            Ok(())
        })
        .await
    }

    /// Removes all of it, as far as it goes: also what a step that failed has left.
    pub(super) async fn remove(&self) -> Result<()> {
        let ended = self.remove_containers().await;
        let scopes = self.remove_scopes().await;
        let place = Arc::clone(&self.place);
        blocking(move || place.remove()).await?;
        ended.and(scopes)
    }

    async fn remove_containers(&self) -> Result<()> {
        if !self.place.state().exists() {
            return Ok(());
        }
        let containers = self.containers()?;
        for id in containers.list().await? {
            containers.delete(&id, true).await?;
        }
        Ok(())
    }
}

async fn create(containers: &ContainerEngine, new: reaper_exec::ContainerConfig) -> Result<Record> {
    Ok(containers.create(new).await?.0)
}

async fn start(containers: &ContainerEngine, id: &ContainerId) -> Result<()> {
    Ok(containers.start(id).await.map(drop)?)
}

/// Waits for the one line that a process of a trial says.
async fn fine(output: std::io::Result<File>) -> Result<()> {
    let read = |error: &std::io::Error| Failure::io("read what it says", error);
    let output = output.map_err(|error| read(&error))?;
    let said = blocking(move || {
        let mut line = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut line).map_err(|error| read(&error))?;
        Ok(line)
    });
    match said.await?.trim_end() {
        FINE => Ok(()),
        "" => Err(Failure::new("its program ended before it said anything")),
        wrong => Err(Failure::new(wrong)),
    }
}

async fn exec(containers: &ContainerEngine, id: &ContainerId, plan: &Plan) -> Result<()> {
    let exec = ExecId::new("trial").map_err(|error| Failure::new(error.to_string()))?;
    let target = Target::Exec(id.clone(), exec.clone());
    let executor = containers.executor();
    let (request, output) = plan.exec()?;
    executor.exec(id, &exec, request).await?;
    executor.start(&target).await?;
    fine(Ok(output)).await?;
    let exit = executor.wait(&target).await?;
    executor.delete(&target).await?;
    match exit.status {
        ExitStatus::Exited { code: 0 } => Ok(()),
        status => Err(Failure::new(format!(
            "it ended with code {}",
            status.code()
        ))),
    }
}

async fn pause(
    steps: &Mutex<Steps>,
    containers: &ContainerEngine,
    id: &ContainerId,
) -> Result<(), ()> {
    let pause = async {
        match containers.pause(id).await {
            Ok(record) if record.status == Status::Paused => Ok(None),
            Ok(record) => Err(Failure::new(format!("it is {}", record.status))),
            Err(EngineError::Executor(ExecutorError::Unsupported { .. })) => {
                let why = "it cannot be paused here, without a cgroup v2 of its own";
                Ok(Some(why.to_owned()))
            }
            // By the step `RUNTIME pause`: a runtime runs containers that it cannot pause, too.
            Err(EngineError::Executor(ExecutorError::Setup { step, message, .. }))
                if step.ends_with(" pause") =>
            {
                Ok(Some(format!("the runtime cannot pause it here: {message}")))
            }
            Err(error) => Err(error.into()),
        }
    };
    if let Some(why) = Steps::step(steps, "pause the container", pause).await? {
        Steps::remark(steps, why);
        return Ok(());
    }
    let resume = async {
        match containers.resume(id).await?.status {
            Status::Running => Ok(()),
            status => Err(Failure::new(format!("it is {status}"))),
        }
    };
    Steps::step(steps, "resume the container", resume).await
}

async fn kill(containers: &ContainerEngine, id: &ContainerId) -> Result<()> {
    containers.kill(id, Signal::KILL, true).await?;
    let exit = containers.wait(id).await?;
    match exit.status {
        ExitStatus::Signaled { signal, .. } if signal == nix::libc::SIGKILL => Ok(()),
        // A runtime reports the code alone.
        ExitStatus::Exited { code: 137 } => Ok(()),
        status => Err(Error::Status {
            operation: "see the end by SIGKILL of",
            id: format!("{id} (exit code {})", status.code()),
            status: Status::Stopped,
        }
        .into()),
    }
}
