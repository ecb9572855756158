//! The directories of an ordinary user's layers.
//!
//! What another user owns cannot be copied up: the copy would have an owner that the user
//! namespace does not know. So the upper layer has, from the start, directories of the user's own
//! in the place of others' ones near the root. That makes room for new files, and lets the old
//! ones be replaced and removed; they cannot be changed in place.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{Access, CWD, access};

use super::plan::{Part, PartKind};
use crate::{
    contract::{Context, Error},
    linux::{
        file_attributes,
        files::{exists, make_dir, remove_tree},
        handle::Handle,
        namespace,
    },
    store::layer_table::Layer,
};

/// Down to here, counted in names from the root, others' directories are the user's in the view.
/// It reaches `/usr/share/man/man1` and `/usr/lib/ARCH/pkgconfig`: where packages put their files.
const DEPTH: usize = 4;

/// Like [`DEPTH`], below here.
const LOCAL: (&str, usize) = ("/usr/local", 5);

/// Makes the upper and the work directory of the layer of `part`. Returns false if the part no
/// longer exists on the host.
pub(crate) fn make_upper(layer: &Layer, part: &Part) -> Result<bool, Error> {
    if !exists(&layer.upper)? {
        let metadata = match fs::metadata(&part.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other.context("stat", &part.path)?,
        };
        make_dir(&layer.upper)?;
        fill(part, metadata, &layer.upper)?;
    }
    make_dir(&layer.work)?;
    Ok(true)
}

/// Where the copy of a directory is over which an overlay lies.
pub(crate) fn lower_of(layer: &Layer) -> PathBuf {
    layer.upper.with_file_name("lower")
}

/// Makes the copy of a directory anew: the entries `copies` as they are now, and places to
/// mount `parts` on.
pub(crate) fn make_copy<'a>(
    layer: &Layer,
    copies: &[PathBuf],
    parts: impl Iterator<Item = &'a Part>,
) -> Result<(), Error> {
    let lower = lower_of(layer);
    remove_tree(&lower)?;
    make_dir(&lower)?;
    let inside = |path: &Path| lower.join(path.file_name().unwrap_or_default());
    for from in copies {
        match copy(from, &inside(from)) {
            // It has gone since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => {
                if let Some(metadata) = copied.context("copy", from)? {
                    file_attributes::set_mode_and_times(&inside(from), &metadata)?;
                }
            }
        }
    }
    for part in parts {
        let to = inside(&part.path);
        if part.is_dir {
            make_dir(&to)?;
        } else {
            fs::write(&to, "").context("make", to)?;
        }
    }
    Ok(())
}

/// Returns what the file was like, if it is no link. One that has become something else since it was
/// listed, such as a FIFO, counts as gone: opening it could wait for ever.
fn copy(from: &Path, to: &Path) -> io::Result<Option<Metadata>> {
    let gone = io::Error::from(io::ErrorKind::NotFound);
    let Some(found) = Handle::at(CWD, from.as_os_str())? else {
        return Err(gone);
    };
    if found.metadata().is_symlink() {
        symlink(found.target().map_err(io::Error::other)?, to)?;
        return Ok(None);
    }
    if !found.metadata().is_file() {
        return Err(gone);
    }
    io::copy(&mut found.open()?, &mut fs::File::create(to)?)?;
    Ok(Some(found.metadata().clone()))
}

/// Makes `upper` like the directory of `part`, of which `metadata` is, and in it the directories of
/// others that are to be the user's.
fn fill(part: &Part, metadata: Metadata, upper: &Path) -> Result<(), Error> {
    let device = metadata.dev();
    let mut todo = Vec::new();
    // The directories in a copy have their own layers.
    if !matches!(part.kind, PartKind::OverlayOverCopy(_)) {
        todo.push((part.path.clone(), upper.to_owned()));
    }
    let mut made = vec![(upper.to_owned(), metadata)];
    while let Some((dir, upper)) = todo.pop() {
        if dir.components().count() > depth(&dir) {
            continue;
        }
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            let own = (metadata.uid(), metadata.gid()) == namespace::own();
            let closed = access(&path, Access::READ_OK | Access::EXEC_OK).is_err();
            let masked = part.masks.iter().any(|mask| mask.path == path);
            if own || closed || masked || metadata.dev() != device {
                continue;
            }
            let upper = upper.join(entry.file_name());
            make_dir(&upper)?;
            file_attributes::mark_placeholder_dir(&upper)?;
            todo.push((path, upper.clone()));
            made.push((upper, metadata));
        }
    }
    // Children first: making one changes its parent's time.
    for (path, metadata) in made.iter().rev() {
        file_attributes::set_mode_and_times(path, metadata)?;
    }
    Ok(())
}

fn depth(dir: &Path) -> usize {
    if dir.starts_with(LOCAL.0) {
        LOCAL.1
    } else {
        DEPTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_become_a_fifo_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let [fifo, file, link, to] =
            ["fifo", "file", "link", "to"].map(|name| dir.path().join(name));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(&file, "x").unwrap();
        symlink("nowhere", &link).unwrap();
        for gone in [&fifo, dir.path()] {
            let error = copy(gone, &to).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{gone:?}");
            assert!(!to.exists());
        }
        assert!(copy(&file, &to).unwrap().is_some());
        assert_eq!(fs::read_to_string(&to).unwrap(), "x");
        fs::remove_file(&to).unwrap();
        assert!(copy(&link, &to).unwrap().is_none());
        assert_eq!(fs::read_link(&to).unwrap(), Path::new("nowhere"));
    }
}
