//! How a node differs from the usual one.

use std::path::{Path, PathBuf};

/// How a node differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether Reaper's workloads run over the overlay; else on the bare host.
    pub overlay: bool,
    /// Whether containerd gives each pod that says nothing of it its AppArmor profile, where the kernel has AppArmor.
    pub apparmor: bool,
    /// Whether containerd, and with it the node of its pods, has a network of its own.
    pub own_network: bool,
    /// Whether Reaper's handlers are those that `reaper-runtime node install` makes; else the harness's own.
    pub installed: bool,
    /// The handler of pods that name none.
    pub default_handler: Option<&'static str>,
    /// More of containerd's environment, which its shims inherit.
    pub env: Vec<(String, String)>,
    /// A program with arguments that containerd is run by, and leaves what it has to it.
    pub run_by: Vec<String>,
    /// The folder in which containerd finds Reaper's shim; else that of the release build.
    pub programs: Option<PathBuf>,
}

impl Options {
    /// With the overlay.
    #[must_use]
    pub fn overlay(mut self) -> Self {
        self.overlay = true;
        self
    }

    /// With containerd's AppArmor profiles.
    #[must_use]
    pub fn apparmor(mut self) -> Self {
        self.apparmor = true;
        self
    }

    /// In a network of its own.
    #[must_use]
    pub fn own_network(mut self) -> Self {
        self.own_network = true;
        self
    }

    /// With the handlers that the installer makes.
    #[must_use]
    pub fn installed(mut self) -> Self {
        self.installed = true;
        self
    }

    /// With another handler than runc's for pods that name none.
    #[must_use]
    pub fn default_handler(mut self, handler: &'static str) -> Self {
        self.default_handler = Some(handler);
        self
    }

    /// With a program that runs containerd.
    #[must_use]
    pub fn run_by(mut self, command: &[&str]) -> Self {
        self.run_by = command.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// With Reaper's programs in this folder.
    #[must_use]
    pub fn programs(mut self, folder: &Path) -> Self {
        self.programs = Some(folder.to_owned());
        self
    }

    /// With a variable in containerd's environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }
}
