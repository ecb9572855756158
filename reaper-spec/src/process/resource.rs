//! The resources that can be limited.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// No resource has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no resource: RLIMIT_NOFILE is one, setrlimit(2) has the others")]
#[non_exhaustive]
pub struct UnknownResource(pub String);

macro_rules! resources {
    ($($variant:ident = $name:literal,)*) => {
        /// The resources of setrlimit(2), written as OCI writes them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[allow(missing_docs, reason = "each is described in setrlimit(2)")]
        pub enum Resource {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Resource {
            /// Every resource.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that setrlimit(2) and OCI use.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

resources! {
    AddressSpace = "RLIMIT_AS",
    Core = "RLIMIT_CORE",
    Cpu = "RLIMIT_CPU",
    Data = "RLIMIT_DATA",
    FileSize = "RLIMIT_FSIZE",
    Locks = "RLIMIT_LOCKS",
    LockedMemory = "RLIMIT_MEMLOCK",
    MessageQueue = "RLIMIT_MSGQUEUE",
    Nice = "RLIMIT_NICE",
    OpenFiles = "RLIMIT_NOFILE",
    Processes = "RLIMIT_NPROC",
    ResidentSet = "RLIMIT_RSS",
    RealtimePriority = "RLIMIT_RTPRIO",
    RealtimeTime = "RLIMIT_RTTIME",
    PendingSignals = "RLIMIT_SIGPENDING",
    Stack = "RLIMIT_STACK",
}

impl FromStr for Resource {
    type Err = UnknownResource;

    fn from_str(name: &str) -> Result<Self, UnknownResource> {
        let found = Self::ALL
            .iter()
            .copied()
            .find(|resource| resource.as_str() == name);
        found.ok_or_else(|| UnknownResource(name.to_owned()))
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
