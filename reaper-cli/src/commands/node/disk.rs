//! Does the steps of a plan: each takes effect as a whole, by a rename or a removal, and is durable before
//! the next begins.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Component, Path, PathBuf},
};

use rustix::fs::OFlags;

use super::{
    record::staged,
    step::{Over, Step},
};

/// How many symbolic links a path may lead through, as in Linux.
const LINKS: usize = 40;
const PROGRAM_MODE: u32 = 0o755;
const FOLDER_MODE: u32 = 0o755;
const O_FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW);

/// Where the node's files are: this machine's root, or that of an image.
#[derive(Debug, Clone)]
pub(super) struct Place {
    root: PathBuf,
}

impl Place {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Where the entry itself is that the node calls `path`, be it a symbolic link: its directory is below the
    /// root, whatever links lead to it.
    pub(super) fn entry(&self, path: &Path) -> io::Result<PathBuf> {
        match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) => Ok(self.at(&self.real(folder)?.join(name))),
            _ => self.file(path),
        }
    }

    /// Where that is which `path` leads to, below the root.
    pub(super) fn file(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(self.at(&self.real(path)?))
    }

    /// No component of `path` may be a symbolic link.
    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// `path` without symbolic links, which lead nowhere but below the root. What does not exist is as it is.
    pub(super) fn real(&self, path: &Path) -> io::Result<PathBuf> {
        let mut real = PathBuf::from("/");
        let mut rest: Vec<PathBuf> = vec![path.to_owned()];
        let mut links = 0;
        while let Some(path) = rest.pop() {
            let mut components = path.components();
            let Some(component) = components.next() else {
                continue;
            };
            rest.push(components.as_path().to_owned());
            match component {
                Component::RootDir => real = PathBuf::from("/"),
                Component::ParentDir => drop(real.pop()),
                Component::CurDir | Component::Prefix(_) => {}
                Component::Normal(name) => {
                    let next = real.join(name);
                    match fs::read_link(self.at(&next)) {
                        Ok(link) => {
                            links += 1;
                            if links > LINKS {
                                return Err(rustix::io::Errno::LOOP.into());
                            }
                            rest.push(link);
                        }
                        Err(_) => real = next,
                    }
                }
            }
        }
        Ok(real)
    }

    /// What is in a text file, if it is there.
    pub(super) fn read(&self, path: &Path) -> io::Result<Option<String>> {
        match fs::read_to_string(self.file(path)?) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether something is there, be it a dangling link.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.entry(path)
            .is_ok_and(|entry| fs::symlink_metadata(entry).is_ok())
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// The calls that change something. Paths are those of this machine.
pub(super) trait Disk {
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Writes a new file, durably; one that is there is removed before.
    fn write(&self, path: &Path, from: &mut dyn Read, owner: &Owner) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes what was changed in the directory durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// Who a new file belongs to, and its mode.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) mode: u32,
    pub(super) ids: Option<(u32, u32)>,
}

/// This machine's filesystem.
#[derive(Debug)]
pub(super) struct Host;

impl Disk for Host {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            // Others have to get to what is in it, whatever the umask of who calls this.
            Ok(()) => File::options()
                .read(true)
                .custom_flags(O_FOLDER.bits().cast_signed())
                .open(path)?
                .set_permissions(fs::Permissions::from_mode(FOLDER_MODE)),
            made => made,
        }
    }

    fn write(&self, path: &Path, from: &mut dyn Read, owner: &Owner) -> io::Result<()> {
        self.remove(path)?;
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        io::copy(from, &mut file)?;
        if let Some((user, group)) = owner.ids {
            fchown(&file, Some(user), Some(group))?;
        }
        file.set_permissions(fs::Permissions::from_mode(owner.mode))?;
        file.flush()?;
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if is_missing(&error) => Ok(()),
            removed => removed,
        }
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir(path) {
            Err(error) if is_missing(&error) => Ok(()),
            // What others put there, or mounted, keeps it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
                ) =>
            {
                Ok(())
            }
            removed => removed,
        }
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        match File::open(path) {
            Ok(folder) => folder.sync_all(),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Does the steps, in their order; the failed one is named.
pub(super) fn execute(
    place: &Place,
    disk: &dyn Disk,
    steps: &[Step],
) -> Result<(), (String, io::Error)> {
    for step in steps {
        one(place, disk, step).map_err(|error| (format!("{step}"), error))?;
    }
    Ok(())
}

fn one(place: &Place, disk: &dyn Disk, step: &Step) -> io::Result<()> {
    let changed = match step {
        Step::MakeFolder(path) => {
            disk.make_folder(&place.entry(path)?)?;
            path
        }
        Step::Write {
            path,
            text,
            like,
            mode,
            over,
        } => {
            let like = like.as_deref().map(|like| fs::metadata(place.file(like)?));
            let owner = match like {
                Some(Ok(like)) => Owner {
                    mode: like.mode() & 0o7777,
                    ids: Some((like.uid(), like.gid())),
                },
                _ => Owner {
                    mode: *mode,
                    ids: None,
                },
            };
            replace(place, disk, path, over, &mut text.as_bytes(), &owner)?;
            path
        }
        Step::Program { path, from } => {
            let owner = Owner {
                mode: PROGRAM_MODE,
                ids: None,
            };
            let from = &mut File::open(from)?;
            replace(place, disk, path, &Over::Anything, from, &owner)?;
            path
        }
        Step::Remove(path) => {
            disk.remove(&place.entry(path)?)?;
            path
        }
        Step::RemoveFolder(path) => {
            disk.remove_folder(&place.entry(path)?)?;
            path
        }
    };
    match place.entry(changed)?.parent() {
        Some(folder) => disk.sync_folder(folder),
        None => Ok(()),
    }
}

/// A process that executes the file, or reads it, has the old one until it opens it again.
fn replace(
    place: &Place,
    disk: &dyn Disk,
    path: &Path,
    over: &Over,
    from: &mut dyn Read,
    owner: &Owner,
) -> io::Result<()> {
    let staged = place.entry(&staged(path))?;
    disk.write(&staged, from, owner)?;
    if let Over::Only(planned) = over
        && place.read(path)? != *planned
    {
        disk.remove(&staged)?;
        return Err(io::Error::other(
            "it was changed meanwhile: call this again",
        ));
    }
    disk.rename(&staged, &place.entry(path)?)
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MakeFolder(path) => write!(f, "make {}", path.display()),
            Self::Write { path, .. } => write!(f, "write {}", path.display()),
            Self::Program { path, from } => {
                write!(f, "install {} from {}", path.display(), from.display())
            }
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::RemoveFolder(path) => write!(f, "remove {}", path.display()),
        }
    }
}
