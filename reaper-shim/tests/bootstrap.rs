//! The program as containerd runs it: `start`, the daemon, `delete`.

#[path = "bootstrap/cleanup.rs"]
mod cleanup;
#[path = "bootstrap/daemon.rs"]
mod daemon;
#[path = "bootstrap/harness.rs"]
mod harness;
#[path = "bootstrap/monitor_cgroup.rs"]
mod monitor_cgroup;
#[path = "bootstrap/network.rs"]
mod network;
#[path = "bootstrap/pids.rs"]
mod pids;
#[path = "bootstrap/start.rs"]
mod start;
