//! Programs that are run at certain steps of a container's life.

mod parse;

use std::{fmt, num::NonZeroU32, path::PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use self::parse::read;

/// OCI's `hooks` (runtime-spec, config.md, "POSIX-platform Hooks"), validated: each list in the order in
/// which its hooks are run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hooks {
    /// When the environment of the container is made, in the runtime's namespaces.
    pub prestart: Vec<Hook>,
    /// After those, likewise.
    pub create_runtime: Vec<Hook>,
    /// After those, in the container's namespaces.
    pub create_container: Vec<Hook>,
    /// At the start, before the program is executed, in the container's namespaces.
    pub start_container: Vec<Hook>,
    /// Once the program was executed, in the runtime's namespaces.
    pub poststart: Vec<Hook>,
    /// Once the container is deleted, in the runtime's namespaces.
    pub poststop: Vec<Hook>,
}

/// A program that is run at a step of a container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// The program, absolute.
    pub path: PathBuf,
    /// Its arguments with its name, as of execv(3). Without any it has its path as its name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its whole environment, `NAME=VALUE`.
    #[serde(default)]
    pub env: Vec<String>,
    /// How many seconds it may take.
    #[serde(default)]
    pub timeout: Option<NonZeroU32>,
}

/// The step at which a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookKind {
    /// [`Hooks::prestart`]
    Prestart,
    /// [`Hooks::create_runtime`]
    CreateRuntime,
    /// [`Hooks::create_container`]
    CreateContainer,
    /// [`Hooks::start_container`]
    StartContainer,
    /// [`Hooks::poststart`]
    Poststart,
    /// [`Hooks::poststop`]
    Poststop,
}

impl HookKind {
    /// Every kind, in the order of a container's life.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Its name in a bundle.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Hooks {
    /// The hooks of a kind.
    pub fn of(&self, kind: HookKind) -> &[Hook] {
        match kind {
            HookKind::Prestart => &self.prestart,
            HookKind::CreateRuntime => &self.create_runtime,
            HookKind::CreateContainer => &self.create_container,
            HookKind::StartContainer => &self.start_container,
            HookKind::Poststart => &self.poststart,
            HookKind::Poststop => &self.poststop,
        }
    }

    /// Whether there is none of any kind.
    pub fn is_empty(&self) -> bool {
        HookKind::ALL.iter().all(|&kind| self.of(kind).is_empty())
    }
}
