//! Making changes of a scope on the host itself.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use reaper_spec::path_hash;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{
    change::{Change, ChangeKind, FileKind},
    progress::{OnProgress, Progress},
};
use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes,
        files::{remove_file, remove_tree},
        walk,
    },
};

/// Whether [`Overlays::apply_to_host`](super::Overlays::apply_to_host) changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyMode {
    /// Only say what would be done.
    DryRun,
    /// Do it.
    Apply,
}

pub(crate) fn commit(
    changes: Vec<Change>,
    paths: &[PathBuf],
    mode: ApplyMode,
    on_progress: OnProgress<'_>,
) -> Result<Vec<Change>, Error> {
    let chosen = choose(changes, paths);
    if let Some(masked) = chosen.iter().find(|change| change.masked) {
        return Err(Error::Masked {
            path: masked.path.clone(),
        });
    }
    if mode == ApplyMode::Apply {
        let (mut files, mut bytes) = (0, 0);
        // Deepest first: a directory is empty when its turn comes.
        for change in chosen
            .iter()
            .rev()
            .filter(|change| change.kind == ChangeKind::Deleted)
        {
            on_progress(Progress {
                files,
                bytes,
                path: &change.path,
            });
            delete(&change.path)?;
            files += 1;
        }
        for change in chosen
            .iter()
            .filter(|change| change.kind != ChangeKind::Deleted)
        {
            on_progress(Progress {
                files,
                bytes,
                path: &change.path,
            });
            apply(change)?;
            files += 1;
            bytes += change.after.map_or(0, |entry| entry.size);
        }
    }
    Ok(chosen)
}

/// The changes at and below `paths`, and the directories that they need.
fn choose(changes: Vec<Change>, paths: &[PathBuf]) -> Vec<Change> {
    let below = |change: &Change| paths.iter().any(|path| change.path.starts_with(path));
    let wanted: Vec<PathBuf> = changes
        .iter()
        .filter(|change| below(change))
        .map(|change| change.path.clone())
        .collect();
    let makes_way = |change: &Change| {
        matches!(change.kind, ChangeKind::Added | ChangeKind::Type)
            && wanted.iter().any(|path| path.starts_with(&change.path))
    };
    changes
        .into_iter()
        .filter(|change| below(change) || makes_way(change))
        .collect()
}

fn delete(path: &Path) -> Result<(), Error> {
    match walk::look(path)? {
        Some(metadata) if metadata.is_dir() => remove_tree(path)?,
        Some(_) => remove_file(path)?,
        None => return Ok(()),
    }
    sync_parent(path)
}

fn apply(change: &Change) -> Result<(), Error> {
    let (Some(upper), Some(after)) = (&change.upper, change.after) else {
        return Ok(());
    };
    // Gone since the comparison.
    let Some(metadata) = walk::look(upper)? else {
        return Ok(());
    };
    let path = &change.path;
    if after.kind == FileKind::Directory {
        if walk::look(path)?.is_some_and(|there| !there.is_dir()) {
            remove_file(path)?;
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).context("make", path);
            }
            _ => {}
        }
        file_attributes::copy(upper, path)?;
        return sync_parent(path);
    }
    if change.kind == ChangeKind::Attributes {
        return file_attributes::copy(upper, path);
    }
    let new = beside(path);
    remove_file(&new)?;
    write(upper, &metadata, &new)?;
    file_attributes::copy(upper, &new)?;
    if metadata.is_file() {
        File::open(&new)
            .and_then(|file| file.sync_all())
            .context("write to disk", &new)?;
    }
    if walk::look(path)?.is_some_and(|there| there.is_dir()) {
        remove_tree(path)?;
    }
    fs::rename(&new, path).context("rename to", path)?;
    sync_parent(path)
}

/// A name in the same directory, the same each time: what a crash left is written over.
fn beside(path: &Path) -> PathBuf {
    path.with_file_name(format!(".reaper-commit-{}", path_hash(path)))
}

fn write(upper: &Path, metadata: &Metadata, new: &Path) -> Result<(), Error> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(upper).context("read the link", upper)?;
        return std::os::unix::fs::symlink(target, new).context("make the link", new);
    }
    if kind.is_file() {
        let mut from = File::open(upper).context("open", upper)?;
        // Closed to others until it has its own mode.
        let to = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(new);
        let mut to = to.context("make", new)?;
        return io::copy(&mut from, &mut to).map(drop).context("write", new);
    }
    let kind = match () {
        () if kind.is_block_device() => FileType::BlockDevice,
        () if kind.is_char_device() => FileType::CharacterDevice,
        () if kind.is_fifo() => FileType::Fifo,
        () => FileType::Socket,
    };
    mknodat(CWD, new, kind, Mode::from_raw_mode(0o600), metadata.rdev()).context("make", new)
}

fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .context("write to disk", parent)
}
