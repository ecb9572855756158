//! Handing the listener of a seccomp filter to the agent that decides on calls (runtime-spec,
//! config-linux.md, "The Container Process State").

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use reaper_spec::OCI_VERSION;
use rustix::{
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType,
    },
    process::PidfdGetfdFlags,
};
use serde_json::{Value, json};

use crate::{
    channel,
    hooks::state,
    monitor::container::monitor::Monitor,
    procfs,
    protocol::{AgentReached, Failure},
};

impl Monitor {
    /// Hands the descriptor `listener` of a process to the agent, and has the process go on.
    pub(crate) fn reach_agent(&self, index: usize, listener: i32) -> Result<(), Failure> {
        let process = &self.processes[index];
        let agent = self
            .filter
            .as_ref()
            .and_then(|filter| filter.agent.as_ref());
        let (Some(agent), Some(pid), Some(start_socket)) =
            (agent, process.pid_number(), &process.start_socket)
        else {
            return Err(Failure::NotFound);
        };
        let failed = |error: &io::Error| {
            let step = format!("reach the seccomp agent at {}", agent.socket.display());
            Failure::setup(step, error)
        };
        let listener = take(pid, listener)
            .map_err(|error| Failure::setup("take the listener of the seccomp filter", &error))?;
        let state = self.process_state(pid, agent.metadata.as_deref());
        send(&agent.socket, state.to_string().as_bytes(), &listener).map_err(|e| failed(&e))?;
        channel::send(start_socket.as_fd(), &AgentReached, &[]).map_err(|e| failed(&e))
    }

    /// What an agent is told of a process that has its filter.
    fn process_state(&self, pid: u32, metadata: Option<&str>) -> Value {
        let seccomp = self.seccomp.as_ref();
        let mut state = json!({
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "state": state(
                &self.id,
                self.status(),
                self.processes[0].pid_number(),
                seccomp.map(|seccomp| seccomp.bundle.as_path()),
                seccomp.map(|seccomp| &seccomp.annotations),
            ),
        });
        if let Some(metadata) = metadata {
            state["metadata"] = metadata.into();
        }
        state
    }
}

fn take(pid: u32, descriptor: i32) -> io::Result<OwnedFd> {
    let process = procfs::pidfd_of(pid)?;
    let taken = rustix::process::pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?;
    Ok(taken)
}

/// Sends all at once to an agent that accepts, and waits for none: the monitor serves others.
fn send(socket: &Path, state: &[u8], listener: &OwnedFd) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let (_folder, address) = channel::short_address(socket)?;
    rustix::net::connect(&connection, &address)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = rustix::net::sendmsg(
        &connection,
        &[io::IoSlice::new(state)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    match sent == state.len() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::WriteZero,
            "it does not read what it is told",
        )),
    }
}
