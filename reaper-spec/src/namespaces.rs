//! Namespaces that a container joins.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{error::Invalid, identity::ProcessIdentity, json::Node};

/// A namespace of another one's that a container is to be in (runtime-spec, config-linux.md,
/// "Namespaces").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespacePath {
    /// What it is a namespace of.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// The file that stands for it, absolute.
    pub path: PathBuf,
    /// The process whose file that is, if it has to be a certain one: by the time that the path is opened,
    /// another process can have its pid, and the path is refused then. No bundle names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessIdentity>,
}

/// What a namespace is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Pids.
    Pid,
    /// Network.
    Network,
    /// Mounts.
    Mount,
    /// IPC.
    Ipc,
    /// Host names.
    Uts,
    /// Users.
    User,
    /// Cgroups.
    Cgroup,
    /// Clocks.
    Time,
}

impl NamespaceKind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Pid, "pid"),
        (Self::Network, "network"),
        (Self::Mount, "mount"),
        (Self::Ipc, "ipc"),
        (Self::Uts, "uts"),
        (Self::User, "user"),
        (Self::Cgroup, "cgroup"),
        (Self::Time, "time"),
    ];

    /// The word for it in bundles.
    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(kind, _)| *kind == self);
        found.map_or("", |(_, word)| word)
    }
}

impl fmt::Display for NamespaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads what stands at `node`: the kind, and the path if there is one.
pub(crate) fn read(node: &Node<'_>) -> Result<(NamespaceKind, Option<NamespacePath>), Invalid> {
    node.object("an object with a type")?;
    let typ = node.get("type")?;
    let word = typ.string()?;
    let known = NamespaceKind::ALL.iter().find(|(_, known)| *known == word);
    let Some(&(kind, _)) = known else {
        return Err(typ.invalid("pid, network, mount, ipc, uts, user, cgroup or time"));
    };
    let place = node.get("path")?;
    let path = match place.text()? {
        Some(path) if !path.starts_with('/') => return Err(place.invalid("an absolute path")),
        path => path,
    };
    let path = path.map(|path| NamespacePath {
        kind,
        path: path.into(),
        process: None,
    });
    Ok((kind, path))
}
