//! What an installation has done, so that it can be finished, upgraded and undone.

use std::{
    ffi::OsString,
    hash::Hasher,
    path::{Path, PathBuf},
};

use reaper_spec::ProcessIdentity;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::{handlers::CLASSES, layout::Form};

/// The record's file.
pub(super) const FILE: &str = "/etc/reaper/install.json";
/// The version of this program, which the shim beside it shares.
pub(super) const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// The newest form of it that is read.
pub(super) const VERSION: u32 = 1;

/// What an installation has done, or is about to do: it is written before anything that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) version: u32,
    /// The version of the programs.
    pub(super) release: String,
    /// Files that were made or added to.
    pub(super) texts: Vec<TextRecord>,
    pub(super) programs: Vec<PathBuf>,
    /// Those of them that were there before.
    #[serde(default)]
    pub(super) found: Vec<PathBuf>,
    /// Directories that were made, each before what is in it.
    pub(super) folders: Vec<PathBuf>,
    /// The containerd that ran when its configuration was changed, and does not know of it.
    pub(super) unaware: Option<ProcessIdentity>,
    /// What restarts it, until that has worked: a containerd that does not run then is to be started by it.
    #[serde(default)]
    pub(super) restart: Option<Restart>,
}

/// How containerd gets to know its new configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Restart {
    /// By others.
    Not,
    Unit(String),
    Command(String),
}

/// A file that was made or added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TextRecord {
    pub(super) path: PathBuf,
    pub(super) form: Form,
    /// The version of the configuration's format.
    pub(super) format: i64,
    /// Whether it was there before. Its backup has what was in it.
    pub(super) existed: bool,
    /// What was written.
    pub(super) after: Digest,
    /// The classes whose handlers were added. What else has the name of a class is an administrator's.
    #[serde(default = "all_classes")]
    pub(super) added: Vec<String>,
    /// Whether it is known to have been written.
    #[serde(default = "yes")]
    pub(super) is_written: bool,
}

/// What records of before mean, which do not say it.
fn all_classes() -> Vec<String> {
    CLASSES.map(str::to_owned).to_vec()
}

fn yes() -> bool {
    true
}

/// What tells a text from another and says nothing of it: configurations have secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest(String);

/// Which a digest begins with, in contrast to a text.
const DIGEST: &str = "siphash128:";

impl Digest {
    pub(super) fn of(text: &str) -> Self {
        let mut hasher = SipHasher24::new();
        hasher.write(text.as_bytes());
        let hash = hasher.finish128().as_u128();
        Self(format!("{DIGEST}{hash:032x}:{}", text.len()))
    }

    pub(super) fn is_of(&self, text: &str) -> bool {
        *self == Self::of(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    /// Records of before have the text itself.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.starts_with(DIGEST) {
            true => Self(text),
            false => Self::of(&text),
        })
    }
}

/// The directory of the record, which is Reaper's own.
pub(super) fn folder() -> &'static Path {
    Path::new(FILE).parent().unwrap_or(Path::new("/"))
}

/// Where what was in a file before is kept.
pub(super) fn backup_of(path: &Path) -> PathBuf {
    with_name(path, "", ".before-reaper")
}

/// Where a file is written before it replaces the one at `path`. No pattern of containerd matches it.
pub(super) fn staged(path: &Path) -> PathBuf {
    with_name(path, ".", ".reaper-new")
}

fn with_name(path: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = OsString::from(before);
    name.push(path.file_name().unwrap_or_default());
    name.push(after);
    path.with_file_name(name)
}

impl Record {
    /// What is known of the text file `path`.
    pub(super) fn text(&self, path: &Path) -> Option<&TextRecord> {
        self.texts.iter().find(|entry| entry.path == path)
    }

    /// Every path that it names.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let texts = self.texts.iter().map(|entry| &entry.path);
        let all = texts.chain(&self.programs).chain(&self.folders);
        all.map(PathBuf::as_path)
    }

    /// As it is on disk.
    pub(super) fn to_json(&self) -> String {
        // It has neither maps nor floats, of which some have no form in JSON.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}
