//! Ids of containers and exec processes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest id that is accepted, in bytes.
///
/// containerd allows 76 and engines use 64. 128 leaves room below `NAME_MAX` (255) for the
/// suffixes of files and cgroups that are named after an id.
pub const MAX_ID_LENGTH: usize = 128;

/// Names below a state root that are not containers.
const RESERVED: [&str; 2] = ["ns", "overlay"];

/// Why a string is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The id has no characters.
    #[error("the id is empty")]
    Empty,
    /// The id is longer than [`MAX_ID_LENGTH`].
    #[error("the id is {0} bytes long, at most {MAX_ID_LENGTH} are allowed")]
    TooLong(usize),
    /// The id has a character that is not allowed at its place.
    #[error(
        "the id {id:?} has {character:?} at byte {at}: letters, digits, '_', '-', '.' and '+' are \
         allowed, and a letter, a digit or '_' in front"
    )]
    Character {
        /// The id.
        id: String,
        /// The character that is refused.
        character: char,
        /// Its byte offset.
        at: usize,
    },
    /// The id is the name of a folder that Reaper keeps beside containers.
    #[error("the id {0:?} is reserved")]
    Reserved(String),
}

/// Whether `id` is safe as one component of a path.
pub(crate) fn check(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > MAX_ID_LENGTH {
        return Err(IdError::TooLong(id.len()));
    }
    let refused = id.char_indices().find(|&(at, c)| {
        let word = c.is_ascii_alphanumeric() || c == '_';
        !(word || at > 0 && matches!(c, '-' | '.' | '+'))
    });
    match refused {
        Some((at, character)) => Err(IdError::Character {
            id: id.to_owned(),
            character,
            at,
        }),
        None => Ok(()),
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $extra:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `id`.
            ///
            /// # Errors
            /// What is wrong with it.
            pub fn new(id: impl Into<String>) -> Result<Self, IdError> {
                let id = id.into();
                check(&id)?;
                let extra: fn(&str) -> Result<(), IdError> = $extra;
                extra(&id)?;
                Ok(Self(id))
            }

            /// The id as text. It is one path component that is neither `.` nor `..`.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(id: String) -> Result<Self, IdError> {
                Self::new(id)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(id: &str) -> Result<Self, IdError> {
                Self::new(id)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                std::path::Path::new(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type! {
    /// The id of a container: unique below one state root, and safe as a file name.
    ///
    /// ```
    /// use reaper_spec::ContainerId;
    /// assert!(ContainerId::new("web-1").is_ok());
    /// assert!(ContainerId::new("../etc").is_err());
    /// assert!(ContainerId::new("ns").is_err(), "a folder of Reaper's own");
    /// ```
    ContainerId, |id| {
        if RESERVED.contains(&id) { Err(IdError::Reserved(id.to_owned())) } else { Ok(()) }
    }
}

id_type! {
    /// The id of an exec process: unique within its container, and safe as a file name.
    ExecId, |_| Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_ids_are_refused_with_reason() {
        assert_eq!(ContainerId::new(""), Err(IdError::Empty));
        assert!(ContainerId::new("x".repeat(MAX_ID_LENGTH)).is_ok());
        assert_eq!(
            ContainerId::new("x".repeat(129)),
            Err(IdError::TooLong(129))
        );
        for (id, refused, offset) in [
            ("a/b", '/', 1),
            ("..", '.', 0),
            (".", '.', 0),
            ("-rf", '-', 0),
            ("a\0", '\0', 1),
            ("a\n", '\n', 1),
            ("ü", 'ü', 0),
            ("a b", ' ', 1),
        ] {
            let error = ContainerId::new(id).unwrap_err();
            assert!(
                matches!(error, IdError::Character { character, at, .. }
                    if (character, at) == (refused, offset)),
                "{id:?}: {error}"
            );
        }
    }

    #[test]
    fn only_containers_share_a_folder_with_reserved_names() {
        for name in RESERVED {
            assert_eq!(ContainerId::new(name), Err(IdError::Reserved(name.into())));
            assert!(ExecId::new(name).is_ok());
        }
    }
}
