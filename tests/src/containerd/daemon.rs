//! containerd's own process: of which version it is, how it starts, ends and answers.

use std::{
    env,
    fs::{self, File},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{Node, locked};
use crate::{
    procfs::Process,
    runtime::{block_on, until},
    suite::reaper_bin,
};

impl Node {
    /// Starts containerd, again if it was stopped, and waits until it answers.
    pub fn start_containerd(&self) {
        let mut daemon = locked(&self.daemon);
        assert!(daemon.is_none(), "containerd is running already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("logs/containerd"))
            .expect("open containerd's log");
        let child = self
            .containerd_command()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor of the log"))
            .stderr(log)
            .spawn()
            .expect("start containerd");
        *daemon = Some(child);
        drop(daemon);
        let channel = until("containerd answers on its socket", || {
            self.assert_running();
            let channel = block_on(containerd_client::connect(self.socket())).ok()?;
            let mut version = containerd_client::services::v1::version_client::VersionClient::new(
                channel.clone(),
            );
            block_on(version.version(())).ok()?;
            Some(channel)
        });
        *locked(&self.channel) = Some(channel);
        // It comes up last, and answers meanwhile that it is not initialized yet.
        until("the CRI answers", || self.cri().is_ready().then_some(()));
    }

    /// Whether containerd has logged a line with all of `words`.
    pub fn has_logged(&self, words: &[&str]) -> bool {
        let log = fs::read_to_string(self.dir.join("logs/containerd")).unwrap_or_default();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    }

    /// Stops containerd as an administrator would. What it runs goes on.
    pub fn stop_containerd(&self) {
        self.end_containerd(Signal::SIGTERM);
    }

    /// Kills containerd. What it runs goes on.
    pub fn kill_containerd(&self) {
        self.end_containerd(Signal::SIGKILL);
    }

    pub(super) fn end_containerd(&self, signal: Signal) {
        let Some(mut child) = locked(&self.daemon).take() else {
            return;
        };
        *locked(&self.channel) = None;
        if let Some(process) = Process::find(child.id()) {
            process.signal(signal);
            until("containerd ends", || {
                child.try_wait().expect("wait for containerd")
            });
        }
    }

    fn containerd_command(&self) -> Command {
        let inherited = env::var_os("PATH").unwrap_or_default();
        let programs = self.options.programs.clone();
        let paths = [programs.unwrap_or_else(reaper_bin), self.suite().bin()]
            .into_iter()
            .chain(env::split_paths(&inherited));
        // setpriv makes containerd die with this process, however that ends.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .args(&self.options.run_by)
            .args(self.enter_network())
            .arg(self.suite().program("containerd"))
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .env(
                "PATH",
                env::join_paths(paths).expect("a PATH without colons in its parts"),
            )
            .env("REAPER_RUNTIME_ROOT", self.state_root())
            .env("REAPER_OVERLAY_ENABLED", self.options.overlay.to_string())
            .env("REAPER_OVERLAY_BASE", self.dir.join("overlay"))
            .env("REAPER_SHIM_LOG", self.dir.join("logs/shim"))
            .env("REAPER_RUNTIME_LOG", self.dir.join("logs/runtime"))
            .envs(self.options.env.iter().cloned());
        command
    }

    fn assert_running(&self) {
        if let Some(daemon) = locked(&self.daemon).as_mut() {
            let ended = daemon.try_wait().expect("look at containerd");
            if let Some(status) = ended {
                self.show_logs();
                panic!("containerd ended: {status}");
            }
        }
    }
}

/// Reads `containerd github.com/… 1.6.20~ds1 …`, where newer ones have `…/v2 2.1.9`.
pub(super) fn version_numbers(text: &str) -> (u32, u32) {
    let numbers = |word: &str| {
        let mut parts = word.trim_start_matches('v').split('.');
        let mut number = || parts.next()?.parse().ok();
        Some((number()?, number()?))
    };
    text.split_whitespace()
        .find_map(numbers)
        .unwrap_or_else(|| panic!("no version in {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::version_numbers;

    #[test]
    fn the_generation_of_a_containerd_is_read_from_its_version() {
        for (text, numbers) in [
            (
                "containerd github.com/containerd/containerd 1.6.20~ds1 x",
                (1, 6),
            ),
            (
                "containerd github.com/containerd/containerd v1.7.24 x",
                (1, 7),
            ),
            (
                "containerd github.com/containerd/containerd/v2 2.1.9+unknown ",
                (2, 1),
            ),
        ] {
            assert_eq!(version_numbers(text), numbers);
        }
    }
}
