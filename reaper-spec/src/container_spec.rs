//! A validated bundle.

mod parse;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{CgroupsPath, ProcessSpec, Resources};

/// What a bundle asks for, validated, as far as it has a meaning on the host.
///
/// Namespaces, seccomp, capabilities and the like are the business of executors that make real
/// containers; those read [`crate::Bundle::spec`].
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
    /// What it may use.
    #[serde(default)]
    pub resources: Resources,
    /// All annotations, as written.
    pub annotations: BTreeMap<String, String>,
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
