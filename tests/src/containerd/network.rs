//! The network of a node that has one of its own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::Node;
use crate::ctr::Output;

/// What is done in a new network. The default route leads nowhere, but tells which address is the node's.
const SET_UP: &str =
    "ip link set lo up && ip link add uplink type bridge && ip link set uplink up &&
    ip address add 10.88.0.1/24 dev uplink && ip route add default via 10.88.0.254";

/// Makes a network that lasts as long as it is mounted on this file.
pub(super) fn make(file: &Path) {
    File::create(file).expect("make a mount point for a network");
    let mut command = std::process::Command::new("unshare");
    command.arg(format!("--net={}", file.display()));
    Output::of(command.args(["sh", "-c", SET_UP])).assert_success();
}

impl Node {
    /// Where the node's network is mounted, if it has one of its own.
    pub fn network(&self) -> PathBuf {
        self.dir.join("network")
    }

    /// Runs a command of a shell in the node's own network, which must succeed.
    #[track_caller]
    pub fn sh_in_network(&self, script: &str) -> String {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net={}", self.network().display()));
        Output::of(command.args(["sh", "-c", script])).assert_success()
    }

    /// Calls `task` in the node's own network. What it connects stays so.
    pub fn in_network<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let network = File::open(self.network()).expect("open the node's network");
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&network, CloneFlags::CLONE_NEWNET).expect("enter the node's network");
                task()
            });
            entered.join().expect("a thread in the node's network")
        })
    }

    pub(super) fn enter_network(&self) -> Vec<String> {
        match self.options.own_network {
            true => vec![
                "nsenter".to_owned(),
                format!("--net={}", self.network().display()),
            ],
            false => Vec::new(),
        }
    }
}
