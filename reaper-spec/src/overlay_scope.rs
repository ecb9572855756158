//! Who shares an overlay.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{IdError, id};

/// Who shares an overlay. Written as `node`, `namespace`, `pod`, `container` or `group:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum OverlayScope {
    /// All workloads of the node.
    Node,
    /// The workloads of one Kubernetes namespace.
    Namespace,
    /// The containers of one pod.
    Pod,
    /// One container.
    Container,
    /// All that name the same group, whatever their namespace. The name is one that a
    /// [`ContainerId`](crate::ContainerId) could have, so it is safe as a file name.
    Group(String),
}

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// It is none of the words.
    #[error("{0:?} is no overlay scope: node, namespace, pod, container and group:NAME are")]
    Unknown(String),
    /// The name of a group is not safe.
    #[error("the group's name cannot be used: {0}")]
    Group(#[source] IdError),
}

impl OverlayScope {
    /// The scope of a named group.
    ///
    /// # Errors
    /// The name would not be safe as a file name.
    pub fn group(name: &str) -> Result<Self, ScopeError> {
        id::check(name).map_err(ScopeError::Group)?;
        Ok(Self::Group(name.to_owned()))
    }

    /// Whether a workload's writes are visible to no other workload in this scope than in `other`,
    /// as far as that can be told from the scopes alone.
    ///
    /// The order is node, group, namespace, pod, container. A group stands below a namespace
    /// because any namespace's pods can name it. Two different groups isolate from each other,
    /// so that neither is as good as the other.
    pub fn isolates_at_least(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Group(one), Self::Group(other)) => one == other,
            _ => self.rank() >= other.rank(),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Node => 0,
            Self::Group(_) => 1,
            Self::Namespace => 2,
            Self::Pod => 3,
            Self::Container => 4,
        }
    }
}

impl FromStr for OverlayScope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        match text {
            "node" => Ok(Self::Node),
            "namespace" => Ok(Self::Namespace),
            "pod" => Ok(Self::Pod),
            "container" => Ok(Self::Container),
            _ => match text.strip_prefix("group:") {
                Some(name) => Self::group(name),
                None => Err(ScopeError::Unknown(text.to_owned())),
            },
        }
    }
}

impl fmt::Display for OverlayScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Namespace => f.write_str("namespace"),
            Self::Pod => f.write_str("pod"),
            Self::Container => f.write_str("container"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl TryFrom<String> for OverlayScope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        text.parse()
    }
}

impl From<OverlayScope> for String {
    fn from(scope: OverlayScope) -> Self {
        scope.to_string()
    }
}
