//! What is wrong with an input.

use std::{borrow::Cow, fmt, io, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Why a bundle, a process or a configuration was refused.
///
/// The messages are one line and meant for people: they name where the value came from, the key,
/// and what would have been right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder is no bundle.
    #[error("{} is no bundle: it has no config.json", bundle.display())]
    NoConfigJson {
        /// The folder.
        bundle: PathBuf,
    },
    /// A file is larger than anything sensible. It was not read.
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
    },
    /// A text is not what its format demands.
    #[error("{origin}not valid {format}: {problem}")]
    Syntax {
        /// Where the text came from.
        origin: Origin,
        /// `JSON` or `TOML`.
        format: &'static str,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// A value is wrong.
    #[error("{origin}{invalid}")]
    Invalid {
        /// Where the value came from.
        origin: Origin,
        /// Which one it is, and what is wrong.
        invalid: Box<Invalid>,
    },
    /// A part that only `Bundle::spec` reads, which the feature `oci-spec` adds, is not what OCI demands.
    #[error("{origin}{at}: {problem}")]
    Schema {
        /// Where the value came from.
        origin: Origin,
        /// Which one it is.
        at: String,
        /// What is wrong.
        problem: String,
    },
    /// A bundle asks for what a process on the host cannot have.
    #[error("{field}: {reason}")]
    Unsupported {
        /// The place in the document.
        field: String,
        /// What cannot be had.
        reason: String,
    },
    /// A key has no meaning.
    #[error("{origin}{key}: unknown key{}", Suggest(suggestion.as_deref()))]
    UnknownKey {
        /// Where it was written.
        origin: Origin,
        /// The key.
        key: String,
        /// A key that exists and looks alike.
        suggestion: Option<String>,
    },
    /// A pod used an annotation that the node's administrator has not allowed.
    #[error(
        "the annotation {annotation} is not allowed on this node: list {key:?} under \
         annotations.allow in the node's configuration, or remove it from the pod"
    )]
    AnnotationNotAllowed {
        /// The whole annotation.
        annotation: String,
        /// How it is called in the list.
        key: String,
    },
    /// The node's admin does not allow it.
    #[error("{rule} does not allow {found}")]
    Policy {
        /// The rule, and where it was written.
        rule: Rule,
        /// What was asked for.
        found: String,
    },
    /// A pod asked for less isolation than the node gives.
    #[error(
        "the pod asks for the overlay scope {asked}, which isolates less than the node's {node}: \
         a pod may only ask for more"
    )]
    LessIsolation {
        /// What the pod asked for.
        asked: crate::OverlayScope,
        /// What the node gives.
        node: crate::OverlayScope,
    },
}

/// A rule of a policy, and where it was written. Displayed as in `policy.users
/// (/etc/reaper/config.toml, line 12)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Rule {
    /// Its name in the table `[policy]`.
    pub key: String,
    /// The file.
    pub source: String,
    /// The line, counted from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy.{} ({}", self.key, self.source)?;
        match self.line {
            Some(line) => write!(f, ", line {line})"),
            None => f.write_str(")"),
        }
    }
}

/// Where a value came from. Displayed as the prefix of a message, with a colon where it isn't
/// empty.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Environment variables.
    Environment,
    /// The options of a runtime in containerd's configuration.
    RuntimeOptions,
    /// A pod's annotations.
    Annotations,
    /// The caller handed it over.
    Caller,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}: ", path.display()),
            Self::Environment => f.write_str("environment: "),
            Self::RuntimeOptions => f.write_str("runtime options in containerd's configuration: "),
            Self::Annotations => f.write_str("annotations: "),
            Self::Caller => Ok(()),
        }
    }
}

/// A wrong value: which, what was expected, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: expected {expected}, found {found}")]
pub struct Invalid {
    /// Where in the document: `process.args[2]`, `annotations["a/b"]`, `overlay.scope`. For the
    /// document as a whole it is `the document`.
    pub at: String,
    /// What would have been right, as a noun: `an absolute path`.
    pub expected: Cow<'static, str>,
    /// What is there.
    pub found: String,
}

impl Invalid {
    pub(crate) fn of(self, origin: Origin) -> Error {
        Error::Invalid {
            origin,
            invalid: Box::new(self),
        }
    }
}

struct Suggest<'a>(Option<&'a str>);

impl fmt::Display for Suggest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(key) => write!(f, ", did you mean {key}?"),
            None => Ok(()),
        }
    }
}

/// A string for a message: quoted, escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
