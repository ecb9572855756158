//! Signals: those that clients send, and those that the monitor gets.

use nix::sys::signal::Signal as NixSignal;
use reaper_spec::ExecId;

use crate::{
    monitor::{
        container::monitor::Monitor,
        support::{connection::ReplyTo, signal::send_signal, states::ContainerState},
    },
    protocol::{Answer, Failure},
    signal::Signal,
};

impl Monitor {
    pub(crate) fn kill(
        &mut self,
        exec: Option<&ExecId>,
        signal: Signal,
        all: bool,
        to: ReplyTo,
    ) -> Result<Option<Answer>, Failure> {
        let (over, ending) = match self.state {
            ContainerState::Live => (false, false),
            ContainerState::Stopping(_) => (false, true),
            ContainerState::Stopped(_) | ContainerState::Aborted => (true, false),
        };
        let process = self.find(exec)?;
        // The end of init is not announced before all that it started has ended.
        let announced = process.has_ended() && (exec.is_some() || !ending);
        if over || announced {
            return Err(Failure::Ended);
        }
        if ending {
            // A lost race: all of it is being killed.
            return Ok(Some(Answer::Done));
        }
        if self.runtime.is_some() {
            return self.kill_by_runtime(exec, signal, all, to);
        }
        let process = self.find(exec)?;
        let pid = process.pid_number().ok_or(Failure::NotFound)?;
        // An exec is killed with what it started: nobody could name the rest afterwards.
        let whole = all || (exec.is_some() && signal == Signal::KILL);
        if !whole {
            return send_signal(pid, signal).map(|()| Some(Answer::Done));
        }
        let leaf = process.leaf.clone();
        let number = signal.number();
        let killed = match (exec, leaf, &self.cgroup) {
            (None, _, Some(cgroup)) if signal == Signal::KILL => cgroup.kill(),
            (None, _, Some(cgroup)) => cgroup.signal(number).map(drop),
            (Some(_), Some(leaf), _) if signal == Signal::KILL => leaf.kill(),
            (Some(_), Some(leaf), _) => leaf.signal(number).map(drop),
            _ => {
                let sent = self
                    .tree(pid)
                    .into_iter()
                    .map(|pid| send_signal(pid, signal));
                let sent: Result<(), _> = sent
                    .filter(|sent| !matches!(sent, Err(Failure::Ended)))
                    .collect();
                return sent.map(|()| Some(Answer::Done));
            }
        };
        killed
            .map_err(|error| Failure::from_error("signal the cgroup", &error))
            .map(|()| Some(Answer::Done))
    }

    pub(crate) fn signals_ready(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            let Ok(signal) = NixSignal::try_from(number) else {
                continue;
            };
            if signal != NixSignal::SIGCHLD
                && self.options.mirror_exit
                && matches!(self.state, ContainerState::Live)
            {
                // Init has not been reaped while the container is alive.
                self.processes[0].signal(signal);
            }
        }
        self.reap();
    }
}
