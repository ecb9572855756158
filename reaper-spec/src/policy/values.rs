//! The values of a policy's rules.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::process::Resource;

/// Whose word on a process's privileges counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Privileges {
    /// The spec's: a process has the capabilities that its spec grants, and no others.
    #[default]
    Spec,
    /// The node's: restrictions are not applied, and a process has all that its user has on the
    /// node.
    Node,
}

impl Privileges {
    /// The word for it in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Node => "node",
        }
    }
}

/// Ids of users or groups, written as `1000` or `1000-1999`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdRange {
    /// The first one.
    pub first: u32,
    /// The last one.
    pub last: u32,
}

impl IdRange {
    /// Whether an id is among them.
    pub fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

/// A text is not a value of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ParsePolicyError(&'static str);

impl FromStr for IdRange {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let wrong = || ParsePolicyError("an id such as 1000, or a range such as 1000-1999");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let id = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let (first, last) = (id(first).ok_or_else(wrong)?, id(last).ok_or_else(wrong)?);
        (first <= last)
            .then_some(Self { first, last })
            .ok_or_else(wrong)
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A file or directory of the host with all below it, written as `/path`, or as `/path:ro` if a
/// container may only mount it read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub struct HostPath {
    /// Where, absolute.
    pub path: PathBuf,
    /// Mounts of it have to be read-only.
    pub read_only: bool,
}

impl FromStr for HostPath {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let (path, read_only) = match text.strip_suffix(":ro") {
            Some(path) => (path, true),
            None => (text, false),
        };
        let path = PathBuf::from(path);
        let plain = path
            .components()
            .all(|part| part != std::path::Component::ParentDir);
        // Else it would be a name that no file has, and the rule one that allows nothing.
        let misspelt = [":ro", ":rw", ":rro", ":rrw"]
            .iter()
            .any(|word| text.to_ascii_lowercase().ends_with(word))
            && !read_only;
        if path.is_absolute() && plain && !misspelt {
            Ok(Self { path, read_only })
        } else {
            Err(ParsePolicyError(
                "an absolute path, with :ro behind it if it may only be read",
            ))
        }
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.read_only { ":ro" } else { "" };
        write!(f, "{}{suffix}", self.path.display())
    }
}

/// The largest hard limit of a resource, written as `RLIMIT_NOFILE=65536`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RlimitCeiling {
    /// What is limited.
    pub resource: Resource,
    /// The largest hard limit.
    pub hard: u64,
}

impl FromStr for RlimitCeiling {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        let wrong = || ParsePolicyError("a limit such as RLIMIT_NOFILE=65536");
        let (name, hard) = text.split_once('=').ok_or_else(wrong)?;
        let resource = name.parse().map_err(|_| wrong())?;
        let hard = hard.parse().map_err(|_| wrong())?;
        Ok(Self { resource, hard })
    }
}

impl fmt::Display for RlimitCeiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.resource.as_str(), self.hard)
    }
}

macro_rules! as_text {
    ($($type:ty)*) => {$(
        impl TryFrom<String> for $type {
            type Error = ParsePolicyError;

            fn try_from(text: String) -> Result<Self, ParsePolicyError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )*};
}

as_text! { IdRange HostPath RlimitCeiling }
