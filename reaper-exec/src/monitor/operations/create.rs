//! SpawnArgs the container, and processes in it.

use std::os::fd::OwnedFd;

use reaper_overlay::View;
use reaper_state::ContainerDir;

use super::runtime_create::make_init;
use crate::{
    cgroup::ContainerCgroup,
    channel,
    monitor::{
        container::monitor::{Monitor, PendingMonitor},
        oci_runtime::{rootfs::Image, runtime::Runtime},
        process::{
            spawn::{SpawnArgs, spawn},
            state::{INIT, Process},
        },
        support::{
            connection::{Connection, ReplyTo, STARTER},
            container_files::{
                choose_cgroup, remove_file, remove_runtime_files, write_cleanup_record,
            },
            states::ContainerState,
        },
    },
    protocol::{CleanupRecord, CreateCall, ExecCall, Failure, VERSION},
};

/// Makes the container. On failure nothing is left of it, and the starter gets its connection
/// back to be told.
pub(crate) fn create(
    pending: PendingMonitor,
    mut call: CreateCall,
    descriptors: Vec<OwnedFd>,
) -> Result<Monitor, (Connection, Failure)> {
    let PendingMonitor {
        mut setup,
        identity,
        oom_score_adj,
        signals,
        starter,
        reply_to,
    } = pending;
    let dir = ContainerDir::at(&call.dir);
    let streams = std::mem::take(&mut call.streams);
    let user = call.process.user.as_ref();
    call.view.user = user.map(|user| (user.uid, user.gid));
    let mut made = CreatedResources {
        dir: dir.clone(),
        cgroup: None,
        view: None,
        runtime: None,
    };
    if call.runtime.is_some() {
        setup.isolation = Box::new(Image);
    }
    let attempt = || -> Result<(OwnedFd, Process), Failure> {
        let cgroup = choose_cgroup(&call)?;
        // What an earlier container of this id left is no end of this one.
        remove_file(&dir.exit_file())?;
        remove_file(&dir.socket())?;
        let plan = CleanupRecord {
            version: VERSION,
            monitor: identity.clone(),
            view: call.view.clone(),
            cgroup: match &cgroup {
                Some((hierarchy, path)) => Some(
                    ContainerCgroup::unpopulated(hierarchy, path)
                        .map_err(|error| Failure::from_error("make the cgroup", &error))?,
                ),
                None => None,
            },
            runtime: call.runtime.clone(),
        };
        write_cleanup_record(&dir, &plan)?;
        if let Some((hierarchy, path)) = cgroup {
            made.cgroup = Some(
                ContainerCgroup::create(&hierarchy, &path)
                    .map_err(|error| Failure::from_error("make the cgroup", &error))?,
            );
        }
        made.view = Some(
            setup
                .isolation
                .prepare(&call.view)
                .map_err(|error| Failure::from_error("prepare the filesystem view", &error))?,
        );
        let listener = channel::listen(&dir.socket())
            .map_err(|error| Failure::setup("listen on the monitor's socket", &error))?;
        if let Some(runtime_config) = call.runtime.clone() {
            let adjustment = call.process.oom_score_adj.or(oom_score_adj);
            let runtime = Runtime::new(runtime_config, &call, oom_score_adj.and(adjustment))?;
            let runtime = made.runtime.insert(runtime);
            let init = make_init(runtime, &setup, &call, streams, descriptors, reply_to)?;
            return Ok((listener, init));
        }
        let view = made.view.as_deref().expect("it was just prepared");
        let init = spawn(SpawnArgs {
            number: INIT,
            setup: &setup,
            id: &call.id,
            namespace: &call.namespace,
            view,
            cgroup: made.cgroup.as_ref(),
            oom_score_adj,
            exec: None,
            process: &call.process,
            streams,
            attached: call.attached,
            descriptors,
            reply_to,
        })?;
        Ok((listener, init))
    };
    match attempt() {
        Ok((listener, init)) => Ok(Monitor {
            setup,
            id: call.id,
            namespace: call.namespace,
            dir,
            options: call.options,
            identity,
            oom_score_adj,
            signals,
            listener,
            connections: vec![starter],
            next_connection: STARTER + 1,
            accept_paused: false,
            view_request: call.view,
            view: made.view.expect("init was made in it"),
            cgroup: made.cgroup,
            runtime: made.runtime,
            processes: vec![init],
            next_process: INIT + 1,
            state: ContainerState::Live,
            freezing: None,
            frozen: false,
            deleted_for: None,
            cpu_ns: (0, 0),
        }),
        Err(failure) => {
            made.undo();
            Err((starter, failure))
        }
    }
}

/// What was made so far.
struct CreatedResources {
    dir: ContainerDir,
    cgroup: Option<ContainerCgroup>,
    view: Option<Box<dyn View>>,
    runtime: Option<Runtime>,
}

impl CreatedResources {
    /// The reason for undoing is what the caller is told; what cannot be undone is found again by
    /// whoever uses the id next.
    fn undo(self) {
        if let Some(mut view) = self.view {
            let _ = view.release();
        }
        if let Some(cgroup) = self.cgroup {
            let _ = cgroup.remove();
        }
        if let Some(runtime) = self.runtime {
            runtime.remove_files();
        }
        remove_runtime_files(&self.dir);
    }
}

impl Monitor {
    /// Makes an exec'd process.
    pub(crate) fn make_exec(
        &mut self,
        call: ExecCall,
        descriptors: Vec<OwnedFd>,
        reply_to: ReplyTo,
    ) -> Result<(), Failure> {
        if self.runtime.is_some() {
            return self.keep_exec(call, descriptors, reply_to);
        }
        let number = self.next_process;
        self.next_process += 1;
        let mut process = spawn(SpawnArgs {
            number,
            setup: &self.setup,
            id: &self.id,
            namespace: &self.namespace,
            view: &*self.view,
            cgroup: self.cgroup.as_ref(),
            oom_score_adj: self.oom_score_adj,
            exec: Some(call.exec),
            process: &call.process,
            streams: call.streams,
            attached: call.attached,
            descriptors,
            reply_to,
        })?;
        process.tied = call.tied;
        self.processes.push(process);
        Ok(())
    }
}
