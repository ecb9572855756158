//! A validated bundle.

mod parse;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    CgroupsPath, Error, Hooks, NamespaceKind, NamespacePath, ProcessSpec, Resources, Seccomp,
};

/// What a bundle asks for, validated, as far as it has a meaning on the host.
///
/// Namespaces and the like are the business of executors that make real containers; those read
/// `Bundle::spec`, which the feature `oci-spec` adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The init process.
    pub process: ProcessSpec,
    /// The image's root filesystem, absolute (a relative `root.path` is below the bundle).
    pub rootfs: Option<PathBuf>,
    /// What to mount into the process's view, in order.
    pub mounts: Vec<Mount>,
    /// What of the filesystem its processes cannot change or read.
    #[serde(default)]
    pub restrictions: FileRestrictions,
    /// The devices that its view has.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// The propagation of its root mount.
    #[serde(default)]
    pub rootfs_propagation: Option<RootPropagation>,
    /// Where the container's cgroup goes.
    pub cgroups_path: Option<CgroupsPath>,
    /// What it may use.
    #[serde(default)]
    pub resources: Resources,
    /// The system calls that its processes may make.
    #[serde(default)]
    pub seccomp: Option<Seccomp>,
    /// The programs that are run at steps of its life.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// The namespaces that it joins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<NamespacePath>,
    /// Whether it asks for a new pid namespace: [`PidMode`](crate::PidMode) decides whether it gets one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_pid_namespace: bool,
    /// The kernel's parameters that are set in its namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// All annotations, as written.
    pub annotations: BTreeMap<String, String>,
    /// What it asks for that a process on the host cannot have, see [`check_host`](Self::check_host).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsupported: Vec<Unsupported>,
}

impl ContainerSpec {
    /// Refuses what a process on the host cannot have. For executors that make real containers it is no matter.
    /// `has_own_users` says that its users are others than the host's anyway, as those of an ordinary user's
    /// container are.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the first such field.
    pub fn check_host(&self, has_own_users: bool) -> Result<(), Error> {
        self.check_sysctls()?;
        let is_missed = |part: &&Unsupported| !(has_own_users && part.concerns_users);
        match self.unsupported.iter().find(is_missed) {
            None => Ok(()),
            Some(Unsupported { field, reason, .. }) => Err(Error::Unsupported {
                field: field.clone(),
                reason: reason.clone(),
            }),
        }
    }

    /// The namespace of this kind that it joins.
    pub fn namespace(&self, kind: NamespaceKind) -> Option<&NamespacePath> {
        self.namespaces.iter().find(|joined| joined.kind == kind)
    }

    /// The parameters that are set in the network that it joins: all, as far as
    /// [`check_host`](Self::check_host) does not refuse them. In the host's network the host's values hold
    /// of those that engines ask for by themselves.
    pub fn network_sysctls(&self) -> BTreeMap<String, String> {
        match self.namespace(NamespaceKind::Network) {
            Some(_) => self.sysctls.clone(),
            None => BTreeMap::new(),
        }
    }

    fn check_sysctls(&self) -> Result<(), Error> {
        let joins = self.namespace(NamespaceKind::Network).is_some();
        let is_fine = |name: &str| match joins {
            true => name.starts_with("net."),
            false => is_engines_sysctl(name),
        };
        match self.sysctls.keys().find(|name| !is_fine(name)) {
            None => Ok(()),
            Some(name) => Err(Error::Unsupported {
                field: format!("linux.sysctl[{name:?}]"),
                reason: "a kernel parameter of its own is not supported for a process on this machine, but for one of the network that it joins".to_owned(),
            }),
        }
    }
}

/// Whether a kernel's parameter is one that containerd sets in the network of each pod, for ports and pings without
/// root. In the host's network the host's values hold.
pub fn is_engines_sysctl(name: &str) -> bool {
    const NAMES: [&str; 2] = [
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
    ];
    NAMES.contains(&name)
}

/// A part of a bundle that a process on the host cannot have, and that would be missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Unsupported {
    /// The place in the document, such as `linux.namespaces[2]`.
    pub field: String,
    /// What cannot be had.
    pub reason: String,
    /// Whether it is about users of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub concerns_users: bool,
}

/// What of its view's filesystem a container's processes cannot change, or read (runtime-spec, config.md,
/// "Root", and config-linux.md, "Masked Paths" and "Readonly Paths").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileRestrictions {
    /// `root.readonly`: all but the bundle's own mounts is read-only.
    pub read_only: bool,
    /// What is hidden; what does not exist is skipped.
    pub masked_paths: Vec<PathBuf>,
    /// What is read-only with all that is mounted below; what does not exist is skipped.
    pub read_only_paths: Vec<PathBuf>,
    /// Neither these hold, nor the options by which an engine's mounts restrict the host's own trees: the node's
    /// admin has decided so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lifted: bool,
}

/// A device, or a FIFO, that a bundle asks for (runtime-spec, config-linux.md, "Devices").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where, absolute, in the process's view.
    pub path: PathBuf,
    /// What it is.
    #[serde(rename = "kind")]
    pub typ: DeviceType,
    /// The major number; 0 of a FIFO.
    pub major: u32,
    /// The minor number; 0 of a FIFO.
    pub minor: u32,
    /// The permissions, at most 0o7777.
    pub mode: Option<u32>,
    /// The owner.
    pub uid: Option<u32>,
    /// The owning group.
    pub gid: Option<u32>,
}

/// What a [`Device`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceType {
    /// A character device (`c` or `u`).
    Character,
    /// A block device (`b`).
    Block,
    /// A FIFO (`p`).
    Fifo,
}

/// The propagation of a root mount (runtime-spec, config-linux.md, "Rootfs Mount Propagation").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootPropagation {
    /// What is mounted in it is seen in namespaces that are copied from it.
    Shared,
    /// What the host mounts in it arrives.
    Slave,
    /// Neither.
    Private,
    /// Neither, and it cannot be bound.
    Unbindable,
}

/// A mount that a bundle asks for (runtime-spec, config.md, "Mounts").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, absolute, in the process's view.
    pub destination: PathBuf,
    /// The filesystem type; `bind` or absent for a bind mount.
    #[serde(rename = "kind")]
    pub typ: Option<String>,
    /// What: a path of the host for a bind mount (a relative one is below the bundle).
    pub source: Option<PathBuf>,
    /// Options of mount(8), `rbind`, `ro`, `rslave`, `rro` and so on, as written.
    pub options: Vec<String>,
}

impl Mount {
    /// Whether the source is a file or folder of the host: the type is `bind`, `rbind`, `none` or absent,
    /// or an option says `bind` or `rbind`, whatever the type (that is how containerd's CRI writes
    /// volumes).
    pub fn is_bind(&self) -> bool {
        let kind = self.typ.as_deref().unwrap_or_default();
        matches!(kind, "bind" | "rbind" | "none" | "")
            || self
                .options
                .iter()
                .any(|option| option == "bind" || option == "rbind")
    }

    /// Whether it is a bind mount with all that is mounted below the source.
    pub fn is_recursive(&self) -> bool {
        self.typ.as_deref() == Some("rbind") || self.options.iter().any(|option| option == "rbind")
    }

    /// Whether nothing of it can be written to, what is mounted below included: `ro` is about the mount
    /// alone. Of options that contradict each other the last one counts, as where it is mounted; where
    /// one for all is contradicted by one for the mount, it is not.
    pub fn is_read_only(&self) -> bool {
        let last = |on: &str, off: &str| {
            let said = |option: &&String| *option == on || *option == off;
            self.options.iter().rfind(said).map(|option| option == on)
        };
        match (last("ro", "rw"), last("rro", "rrw")) {
            (Some(false), _) | (_, Some(false)) | (None, None) => false,
            (_, Some(true)) => true,
            (Some(true), None) => !self.is_recursive(),
        }
    }
}
