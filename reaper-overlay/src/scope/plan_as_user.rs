//! What an ordinary user's view is made of.
//!
//! A user namespace that an ordinary user makes may not look below the mounts that it was born
//! with: overlay refuses a lower layer on which something else is mounted further down, and `/`
//! always is one. So the view is put together of many overlays. A directory without mounts below it
//! is the lower layer of one; a directory that has some is a [`Shape::Shell`], an overlay over a
//! directory made up for it, on which its entries are mounted one by one.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, access},
    mount::MountAttrFlags,
};

use crate::{
    contract::{
        Context, Error,
        host_paths::{HOST_TREES, PSEUDO},
    },
    linux::mountinfo::{self, MountInfo},
    mount::{mask::Mask, overlayfs},
};

/// The largest file of a shell that is copied instead of bound.
const MAX_COPY: u64 = 1 << 20;

/// One part of the view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) directory: bool,
    pub(crate) shape: Shape,
    /// Of the mount of the host that it is on.
    pub(crate) attributes: MountAttrFlags,
    /// What is hidden in it by a layer.
    pub(crate) masks: Vec<Mask>,
}

/// What stands for a part of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// An overlay over it.
    Overlay,
    /// An overlay over a directory with copies of these entries of it, and places to mount the
    /// others on.
    Shell(Vec<PathBuf>),
    /// The host's own, which cannot be changed.
    ReadOnly,
    /// The host's own.
    Host,
}

/// Decides what is in the view, parents before children, given all mounts of the calling process.
/// `host` is bound from the host, besides its usual trees.
pub(crate) fn plan(mounts: &[MountInfo], host: &[PathBuf]) -> Result<Vec<Place>, Error> {
    let usual = HOST_TREES.iter().map(PathBuf::from);
    let host: BTreeSet<PathBuf> = usual.chain(host.iter().cloned()).collect();
    let points = mounts.iter().map(|mount| mount.mount_point.clone());
    let visible = mountinfo::visible(mounts)
        .into_iter()
        .map(|mount| (mount.mount_point.as_path(), mount));
    let planner = Planner {
        interrupted: points.chain(host.iter().cloned()).collect(),
        visible: visible.collect(),
        host,
    };
    let mut places = vec![planner.place(PathBuf::from("/"), true, Shape::Shell(Vec::new()))];
    let mut next = 0;
    while next < places.len() {
        if matches!(places[next].shape, Shape::Shell(_)) {
            let (copies, parts) = planner.take_apart(&places[next].path)?;
            places[next].shape = Shape::Shell(copies);
            places.extend(parts);
        }
        next += 1;
    }
    Ok(places)
}

struct Planner<'a> {
    /// Where something is mounted, and what is not to be overlaid.
    interrupted: BTreeSet<PathBuf>,
    visible: HashMap<&'a Path, &'a MountInfo>,
    host: BTreeSet<PathBuf>,
}

impl Planner<'_> {
    fn place(&self, path: PathBuf, directory: bool, shape: Shape) -> Place {
        let mount = path.ancestors().find_map(|dir| self.visible.get(dir));
        Place {
            attributes: mount.map_or(MountAttrFlags::empty(), |mount| {
                overlayfs::attributes(&mount.options)
            }),
            path,
            directory,
            shape,
            masks: Vec::new(),
        }
    }

    /// Which entries of the directory `dir` are copied, and what becomes of the others.
    fn take_apart(&self, dir: &Path) -> Result<(Vec<PathBuf>, Vec<Place>), Error> {
        let (mut copies, mut parts) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(dir) {
            // It has gone since its parent was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((copies, parts)),
            other => other.context("list", dir)?,
        };
        for entry in entries {
            let path = entry.context("list", dir)?.path();
            // It may have gone since, or be somebody's who lets nobody look.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_symlink() {
                copies.push(path);
            } else if self.host.contains(&path) {
                parts.push(self.place(path, metadata.is_dir(), Shape::Host));
            } else if metadata.is_dir() {
                let shape = self.shape(&path);
                parts.push(self.place(path, true, shape));
            } else if metadata.is_file()
                && metadata.len() <= MAX_COPY
                && !self.visible.contains_key(path.as_path())
                && access(&path, Access::READ_OK).is_ok()
            {
                copies.push(path);
            } else {
                parts.push(self.place(path, false, Shape::ReadOnly));
            }
        }
        Ok((copies, parts))
    }

    fn shape(&self, dir: &Path) -> Shape {
        let mount = self.visible.get(dir);
        let pseudo = mount.is_some_and(|mount| PSEUDO.contains(&mount.fs_type.as_str()));
        // What the user may not look into is shown as it is: an overlay would be the user's.
        if pseudo || access(dir, Access::READ_OK | Access::EXEC_OK).is_err() {
            Shape::ReadOnly
        } else if self.is_interrupted(dir) {
            Shape::Shell(Vec::new())
        } else {
            Shape::Overlay
        }
    }

    /// Whether something is mounted below `dir`.
    fn is_interrupted(&self, dir: &Path) -> bool {
        let behind = (Bound::Excluded(dir), Bound::Unbounded);
        self.interrupted
            .range::<Path, _>(behind)
            .next()
            .is_some_and(|next| next.starts_with(dir))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with the root and mounts of these types at these paths.
    fn mounts(points: &[(&Path, &str)]) -> Vec<MountInfo> {
        let mut text = "1 0 0:1 / / rw,nosuid - ext4 /dev/sda rw\n".to_owned();
        for (at, (path, fs_type)) in points.iter().enumerate() {
            let path = mountinfo::escape(path.as_os_str());
            let id = at + 2;
            text += &format!("{id} 1 0:{id} / {path} rw,noexec - {fs_type} x rw\n");
        }
        mountinfo::parse(text.as_bytes())
    }

    #[test]
    fn only_directories_with_mounts_below_are_taken_apart() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let dir = dir.path();
        for name in ["a/mount", "a/plain", "b", "c", "own"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::write(dir.join("a/file"), "x").unwrap();
        fs::File::create(dir.join("a/large"))
            .unwrap()
            .set_len(MAX_COPY + 1)
            .unwrap();
        std::os::unix::fs::symlink("nowhere", dir.join("a/link")).unwrap();
        let (mount, pseudo) = (dir.join("a/mount"), dir.join("c"));
        let mounts = mounts(&[(&mount, "ext4"), (&pseudo, "cgroup2")]);
        let places = plan(&mounts, &[dir.join("own")]).unwrap();
        let shape = |path: &str| {
            let path = if path.starts_with('/') {
                PathBuf::from(path)
            } else {
                dir.join(path)
            };
            let found = places.iter().position(|place| place.path == path);
            found.map(|at| (at, places[at].shape.clone(), places[at].attributes))
        };
        for (path, expected) in [
            ("/proc", Shape::Host),
            ("/etc", Shape::Overlay),
            ("a/mount", Shape::Overlay),
            ("a/plain", Shape::Overlay),
            ("a/large", Shape::ReadOnly),
            ("b", Shape::Overlay),
            ("c", Shape::ReadOnly),
            ("own", Shape::Host),
        ] {
            assert_eq!(shape(path).unwrap().1, expected, "{path}");
        }
        let (at, shell, _) = shape("a").unwrap();
        let Shape::Shell(mut copies) = shell else {
            panic!("{shell:?}");
        };
        copies.sort();
        assert_eq!(copies, [dir.join("a/file"), dir.join("a/link")]);
        assert!(shape("/").unwrap().0 < at && at < shape("a/plain").unwrap().0);
        assert!(shape("b/x").is_none() && shape("a/file").is_none());
        assert_eq!(
            shape("a/mount").unwrap().2,
            MountAttrFlags::MOUNT_ATTR_NOEXEC
        );
        assert_eq!(
            shape("a/plain").unwrap().2,
            MountAttrFlags::MOUNT_ATTR_NOSUID
        );
    }
}
