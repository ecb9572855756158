//! A validated bundle.

mod parse;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    CgroupsPath, ProcessSpec, Seccomp,
    error::{Error, Invalid, Origin},
};

/// What a bundle asks for, validated, as far as it has a meaning on the host.
///
/// Namespaces and the like are the business of executors that make real containers; those read
/// [`crate::Bundle::spec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The init process.
    pub process: ProcessSpec,
    /// The image's root filesystem, absolute (a relative `root.path` is below the bundle).
    pub rootfs: Option<PathBuf>,
    /// What to mount into the process's view, in order.
    pub mounts: Vec<Mount>,
    /// Where the container's cgroup goes.
    pub cgroups_path: Option<CgroupsPath>,
    /// Whether its processes are to have users of their own: a user namespace, new or by path.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user_namespace: bool,
    /// The system calls that its processes may make.
    #[serde(default)]
    pub seccomp: Option<Seccomp>,
    /// All annotations, as written.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerSpec {
    /// Refuses what processes of the host cannot have, and what would be no small thing to leave out.
    /// An executor that makes real containers has it.
    ///
    /// # Errors
    /// There is a user namespace: without it its root is the host's.
    pub fn refuse_unsupported(&self) -> Result<(), Error> {
        if !self.user_namespace {
            return Ok(());
        }
        let invalid = Invalid {
            at: "linux.namespaces".to_owned(),
            expected: "no user namespace (hostUsers: false), since a process of the host has the \
                       host's users: set hostUsers to true or leave it out, and name another user \
                       with runAsUser"
                .into(),
            found: "one of the type user".to_owned(),
        };
        Err(invalid.of(Origin::Caller))
    }
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
    /// Whether the source is a file or folder of the host: the type is `bind` or absent, or an
    /// option says `bind` or `rbind`, whatever the type (that is how containerd's CRI writes
    /// volumes).
    pub fn is_bind(&self) -> bool {
        self.typ.as_deref().is_none_or(|kind| kind == "bind")
            || self
                .options
                .iter()
                .any(|option| option == "bind" || option == "rbind")
    }
}
