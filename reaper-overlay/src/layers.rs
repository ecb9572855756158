//! The layers of a scope: which directory holds the changes to which mount of the host.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Error, attributes,
    base::{exists, make_dir},
    error::Context,
    masks::{self, Mask},
    mountinfo::{escape, unescape},
    scope::ScopePaths,
    stamps::{Glance, Stamps},
};

/// The version of `layers.json` that this crate writes, and the newest that it reads.
const VERSION: u32 = 1;

/// What is known of a scope's layers, on disk beside them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    version: u32,
    /// When the scope came into being, in seconds since 1970.
    pub(crate) created: u64,
    /// The mount of the host, escaped as in mountinfo, and the directory of its layer.
    directories: BTreeMap<String, u32>,
    /// The mounts that are bound read-only, because overlay refused them; escaped as well.
    pub(crate) read_only: Vec<String>,
    /// The mounts that are shown as they are, because they could not be protected; likewise.
    #[serde(default)]
    pub(crate) unprotected: Vec<String>,
    /// Whether the mounts of the view are locked, so that workloads cannot take them away.
    pub(crate) locked: bool,
    /// Whether the namespace still has the host's root, with the view beside it.
    #[serde(default)]
    pub(crate) keeps_host: bool,
    /// What the lower layers looked like when they were last mounted.
    pub(crate) stamps: Stamps,
}

/// What a member needs to know of the table.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Brief {
    pub(crate) locked: bool,
    #[serde(default)]
    pub(crate) keeps_host: bool,
    pub(crate) stamps: Glance,
}

impl Brief {
    /// Reads it from the table of a scope; `None` if the scope does not exist.
    pub(crate) fn read(paths: &ScopePaths) -> Result<Option<Self>, Error> {
        read_versioned(&paths.layers(), VERSION)
    }
}

/// One layer's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layer {
    /// The mount of the host.
    pub(crate) mount: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// What is hidden, for comparisons: found again after a reboot.
    pub(crate) mask: PathBuf,
    /// The same, to be mounted: overlay refuses a lower layer that lies inside another one, so it
    /// is never on a filesystem of the host.
    pub(crate) live_mask: PathBuf,
}

impl Table {
    pub(crate) fn new() -> Self {
        let created = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs());
        Self {
            version: VERSION,
            created,
            directories: BTreeMap::new(),
            read_only: Vec::new(),
            unprotected: Vec::new(),
            locked: false,
            keeps_host: false,
            stamps: Stamps::default(),
        }
    }

    /// Reads the table of a scope; `None` if the scope does not exist.
    pub(crate) fn read(paths: &ScopePaths) -> Result<Option<Self>, Error> {
        read_versioned(&paths.layers(), VERSION)
    }

    pub(crate) fn write(&self, paths: &ScopePaths) -> Result<(), Error> {
        write_json(&paths.layers(), self)
    }

    /// The layers that exist, the parents' mounts before their children's.
    pub(crate) fn layers(&self, paths: &ScopePaths) -> Vec<Layer> {
        self.directories
            .iter()
            .map(|(mount, &at)| Layer::new(paths, unescape(mount.as_bytes()).into(), at))
            .collect()
    }

    /// The layer for `mount`: the one that it had before, else a new one.
    pub(crate) fn layer(&mut self, paths: &ScopePaths, mount: &Path) -> Layer {
        let next = self.directories.values().max().map_or(0, |last| last + 1);
        let at = *self
            .directories
            .entry(escape(mount.as_os_str()))
            .or_insert(next);
        Layer::new(paths, mount.to_owned(), at)
    }
}

impl Layer {
    fn new(paths: &ScopePaths, mount: PathBuf, at: u32) -> Self {
        let dir = paths.data.join(at.to_string());
        Self {
            mount,
            upper: dir.join("upper"),
            work: dir.join("work"),
            mask: dir.join("mask"),
            live_mask: paths.live_masks().join(at.to_string()),
        }
    }

    /// Makes the directories; an upper layer that exists is kept.
    pub(crate) fn make(&self, masks: &[Mask]) -> Result<(), Error> {
        let is_new = make_new_dir(self.upper.parent().unwrap_or(&self.upper))?;
        // The last step, so that one that a kill cut short is taken up again.
        if is_new || !exists(&self.work)? {
            make_new_dir(&self.upper)?;
            // The root of the view is the upper layer's own directory.
            attributes::copy(&self.mount, &self.upper)?;
            make_new_dir(&self.work)?;
        }
        if !is_new {
            remove_tree(&self.mask)?;
        }
        if !masks.is_empty() {
            for dir in [&self.mask, &self.live_mask] {
                make_dir(dir)?;
                masks::write_layer(dir, &self.mount, masks.iter(), &masks::AS_ROOT)?;
            }
        }
        Ok(())
    }
}

/// Makes a directory; `false` if it existed.
fn make_new_dir(path: &Path) -> Result<bool, Error> {
    match rustix::fs::mkdir(path, rustix::fs::Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno).context("make", path),
    }
}

/// Removes `path` with everything below; it may be missing.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    let mut removed = fs::remove_dir_all(path);
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    if removed.as_ref().is_err_and(denied) {
        // Without root a directory's mode keeps its owner out, as overlay's own work directory's.
        open_up(path)?;
        removed = fs::remove_dir_all(path);
    }
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// Gives the owner of all directories at and below `root` access to them.
fn open_up(root: &Path) -> Result<(), Error> {
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        fs::set_permissions(&dir, Permissions::from_mode(0o700))
            .context("change the mode of", &dir)?;
        for entry in fs::read_dir(&dir).context("list", &dir)? {
            let entry = entry.context("list", &dir)?;
            if entry.file_type().context("stat", &dir)?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Removes the file `path`; it may be missing.
pub(crate) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// Reads a JSON file; `None` if it is missing.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = read_file(path)?;
    text.map(|text| parse(path, &text)).transpose()
}

/// The same, of a format that has versions up to `known`.
///
/// The version is read first, so that a file of a newer format is refused as newer, and not as
/// corrupt for what changed in it. A file without a version is older than the first that has one.
pub(crate) fn read_versioned<T: DeserializeOwned>(
    path: &Path,
    known: u32,
) -> Result<Option<T>, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        version: u32,
    }
    let Some(text) = read_file(path)? else {
        return Ok(None);
    };
    let Versioned { version } = parse(path, &text)?;
    if version > known {
        return Err(Error::Newer {
            path: path.to_owned(),
            found: version,
            known,
        });
    }
    parse(path, &text).map(Some)
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("read", path),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|source| Error::Corrupt {
        path: path.to_owned(),
        source,
    })
}

/// Replaces a JSON file in one step, so that nobody reads half of it, not even after a power cut.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(|source| Error::Corrupt {
        path: path.to_owned(),
        source,
    })?;
    let mut name = path.file_name().unwrap_or(OsStr::new("file")).to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = File::create(&new).context("make", &new)?;
    file.write_all(&text).context("write", &new)?;
    // Some filesystems rename before they write: a power cut would leave an empty file.
    file.sync_data().context("write to disk", &new)?;
    fs::rename(&new, path).context("rename to", path)
}

/// The same, and it is on disk afterwards.
pub(crate) fn write_json_durably<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    write_json(path, value)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.context("write to disk", dir)
}
