//! The backend that makes processes itself, by fork(2) and execve(2) on the host.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{sys::signal::Signal as NixSignal, unistd::Pid};
use reaper_overlay::FilesystemIsolation;
use reaper_spec::{CgroupMode, ExecId, Exit, ProcessIdentity, Resources, Status};

use crate::{
    cgroup::limits,
    channel,
    child::ChildHooks,
    executor::ProcessInfo,
    hooks::{HookBundle, HookFolder},
    monitor::{
        container::{
            backend::{Backend, Reply},
            monitor::Monitor,
            new_container::NewContainer,
        },
        process::{
            spawn::{SpawnArgs, spawn},
            state::{INIT, Process},
        },
        support::{
            connection::ReplyTo,
            signal::{send_signal, send_signals},
            states::ProcessState,
        },
    },
    protocol::{ExecProcess, Failure, Response, StartMessage},
    seccomp,
    signal::Signal,
};

/// Makes processes by fork(2), and acts on them by signals and the cgroup.
pub(crate) struct HostBackend;

impl Backend for HostBackend {
    fn isolation(&self) -> Option<Box<dyn FilesystemIsolation>> {
        None
    }

    fn create_init(&self, new: &mut NewContainer) -> Result<Process, Failure> {
        // Before the fork, and once for all that follow.
        let seccomp = new.call.seccomp.as_ref();
        let filter = seccomp.map(|seccomp| seccomp::compile(&seccomp.spec));
        new.filter = filter
            .transpose()
            .map_err(|error| Failure::from_error("make the seccomp filter", &error))?;
        new.keep_projects();
        let folder = HookFolder::of(new.dir.path());
        if let Some(config) = &new.call.hooks {
            let bundle = HookBundle::read(&config.bundle);
            let bundle = bundle.map_err(|error| Failure::setup("read the bundle", &error))?;
            new.hook_bundle = Some(bundle);
        }
        let hooks = new.call.hooks.as_ref().zip(new.hook_bundle.as_ref());
        let hooks = hooks.map(|(config, bundle)| ChildHooks {
            id: &new.call.id,
            config,
            bundle,
            folder: &folder,
        });
        let view = new.view.as_deref().ok_or(Failure::NotFound)?;
        let init = spawn(SpawnArgs {
            number: INIT,
            config: &new.pending.config,
            id: &new.call.id,
            namespace: &new.call.namespace,
            view,
            cgroups: &new.cgroups,
            oom_score_adj: new.pending.oom_score_adj,
            inherit: &new.call.options.inherit,
            filter: new.filter.as_ref(),
            project_filter: new.project_filter.as_ref(),
            namespaces: &new.namespaces,
            pids: &new.pids,
            holds_pids: new.call.holds_pids,
            sysctls: &new.call.sysctls,
            hooks,
            exec: None,
            process: &new.call.process,
            streams: std::mem::take(&mut new.call.streams),
            attached: new.call.attached,
            descriptors: std::mem::take(&mut new.descriptors),
            reply_to: new.pending.reply_to,
        })?;
        if let Some(pid) = init.pid_number() {
            new.pids.keep(pid)?;
        }
        Ok(init)
    }

    fn exec(
        &self,
        monitor: &mut Monitor,
        mut call: ExecProcess,
        descriptors: Vec<OwnedFd>,
        reply_to: ReplyTo,
    ) -> Result<(), Failure> {
        // A client's spec may be silent on what confines the container.
        call.process.inherit(&monitor.init_spec);
        let number = monitor.number_process();
        let mut process = spawn(SpawnArgs {
            number,
            config: &monitor.config,
            id: &monitor.id,
            namespace: &monitor.namespace,
            view: &*monitor.view,
            cgroups: &monitor.cgroups,
            oom_score_adj: monitor.oom_score_adj,
            inherit: &monitor.options.inherit,
            filter: monitor.filter.as_ref(),
            project_filter: monitor.project_filter.as_ref(),
            namespaces: &monitor.namespaces,
            pids: &monitor.pids,
            holds_pids: false,
            sysctls: &BTreeMap::new(),
            hooks: None,
            exec: Some(call.exec),
            process: &call.process,
            streams: call.streams,
            attached: call.attached,
            descriptors,
            reply_to,
        })?;
        process.kill_on_disconnect = call.kill_on_disconnect;
        monitor.processes.push(process);
        Ok(())
    }

    fn start(
        &self,
        monitor: &mut Monitor,
        exec: Option<&ExecId>,
        streams: &[BorrowedFd<'_>],
        to: ReplyTo,
    ) -> Reply {
        let process = monitor.find(exec)?;
        let Some(start_socket) = &process.start_socket else {
            return Err(Failure::status("start", Status::Created));
        };
        match channel::send(start_socket.as_fd(), &StartMessage, streams) {
            Ok(()) => {
                process.state.enter(ProcessState::Starting(to));
                Ok(None)
            }
            // It was killed while it waited; its exit is about to be reaped.
            Err(_) => Err(Failure::Ended),
        }
    }

    fn kill(
        &self,
        monitor: &mut Monitor,
        exec: Option<&ExecId>,
        signal: Signal,
        all: bool,
        _to: ReplyTo,
    ) -> Reply {
        let process = monitor.find(exec)?;
        let pid = process.pid_number().ok_or(Failure::NotFound)?;
        // SIGKILL goes to all that an exec has started: once the exec has exited, no client could
        // name the rest.
        if !all && (exec.is_none() || signal != Signal::KILL) {
            return send_signal(pid, signal).map(|()| Some(Response::Done));
        }
        let leaf = process.leaf.clone();
        let number = signal.number();
        let cgroups = Some(&monitor.cgroups).filter(|cgroups| !cgroups.is_empty());
        let sent = match (exec, leaf, cgroups) {
            (None, _, Some(cgroups)) if signal == Signal::KILL => cgroups.kill(),
            (None, _, Some(cgroups)) => cgroups.signal(number).map(drop),
            (Some(_), Some(leaf), _) if signal == Signal::KILL => leaf.kill(),
            (Some(_), Some(leaf), _) => leaf.signal(number).map(drop),
            (Some(_), None, _) => {
                let sent = send_signals(monitor.tree(pid), signal);
                return sent.map(|()| Some(Response::Done));
            }
            (None, _, None) => {
                let all = monitor.pids_by_descent().into_iter();
                let sent = send_signals(all.map(|process| process.pid).collect(), signal);
                return sent.map(|()| Some(Response::Done));
            }
        };
        sent.map_err(|error| Failure::from_error("signal the cgroup", &error))
            .map(|()| Some(Response::Done))
    }

    fn kill_unwanted(&self, monitor: &mut Monitor, index: usize) {
        monitor.processes[index].signal(NixSignal::SIGKILL);
        if index == 0 {
            monitor.thaw_killed();
        }
    }

    fn update(&self, monitor: &mut Monitor, resources: &Resources, _to: ReplyTo) -> Reply {
        let mode = monitor.options.cgroups;
        if mode != CgroupMode::Enforce {
            return Err(Failure::Unsupported {
                operation: "update".to_owned(),
                reason: format!(
                    "limits are not enforced here: cgroups = {:?}",
                    mode.as_str()
                ),
            });
        }
        limits::update(&monitor.cgroups, resources)
            .map(|()| Some(Response::Done))
            .map_err(|error| Failure::from_error("update the limits", &error))
    }

    fn pause(&self, monitor: &mut Monitor, to: ReplyTo) -> Reply {
        monitor.freeze(to).map(|()| None)
    }

    fn resume(&self, monitor: &mut Monitor, _to: ReplyTo) -> Reply {
        monitor.thaw().map(|()| Some(Response::Done))
    }

    fn pids(&self, monitor: &Monitor) -> Vec<ProcessInfo> {
        let listed = monitor.pids_of_cgroup();
        listed.unwrap_or_else(|| monitor.pids_by_descent())
    }

    fn helpers(&self, _monitor: &Monitor) -> Vec<u32> {
        Vec::new()
    }

    fn identify(&self, _pid: Pid) -> Option<ProcessIdentity> {
        None
    }

    fn helper_exited(&self, _monitor: &mut Monitor, _pid: Pid, _exit: &Exit) -> bool {
        false
    }

    fn unknown_child_exited(
        &self,
        _monitor: &mut Monitor,
        _pid: Pid,
        _identity: Option<ProcessIdentity>,
        _exit: Exit,
    ) {
    }

    fn kill_timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn delete_timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn delete(&self, _monitor: &mut Monitor) -> bool {
        true
    }
}
