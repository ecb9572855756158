//! What an ordinary user's view is made of.
//!
//! A user namespace that an ordinary user makes may not look below the mounts that it was born
//! with: overlay refuses a lower layer on which something else is mounted further down, and `/`
//! always is one. So the view is put together of many overlays. A directory without mounts below it
//! is the lower layer of one; a directory that has some is a [`PartKind::OverlayOverCopy`], an
//! overlay over a directory made up for it, on which its entries are mounted one by one.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs, io,
    ops::Bound,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, access},
    mount::MountAttrFlags,
};

use super::{
    image, masks, masks_as_user,
    plan::{Part, PartKind, ViewPlan},
    scope_options::ScopeOptions,
};
use crate::{
    contract::{
        Context, Error,
        host_paths::{HOST_TREES, PSEUDO},
    },
    linux::mountinfo::{self, MountInfo},
    mount::flags,
};

/// The largest file that is copied instead of bound.
const MAX_COPY: u64 = 1 << 20;

/// Decides what is in the view.
pub(crate) fn plan(base: &Path, options: &ScopeOptions<'_>) -> Result<ViewPlan, Error> {
    let mounts = mountinfo::read()?;
    let mut parts = parts(&mounts, options.host_paths)?;
    let points: HashSet<&Path> = mounts.iter().map(|m| m.mount_point.as_path()).collect();
    if let Some(image) = &options.image {
        // The kernel refuses an overlay over what has mounts below it.
        let is_whole = |path: &Path| !points.iter().any(|point| point.starts_with(path));
        image::add_linked_dirs(&mut parts, image, is_whole)?;
    }
    let found = masks::find(options.masks, &[])?;
    let masked_paths = masks_as_user::apply(&mut parts, found, base);
    let overlays = parts.iter().filter(|part| part.is_overlay());
    let lower = overlays
        .map(|part| &part.path)
        .filter(|path| points.contains(path.as_path()))
        .cloned()
        .collect();
    Ok(ViewPlan {
        parts,
        detached: Vec::new(),
        masked_paths,
        hidden: vec![base.to_owned()],
        missing: Vec::new(),
        lower,
    })
}

/// The parts of the view, parents before children, given all mounts of the calling process.
/// `host` is bound from the host, besides its usual trees.
fn parts(mounts: &[MountInfo], host: &[PathBuf]) -> Result<Vec<Part>, Error> {
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
    let mut parts = vec![planner.part(
        PathBuf::from("/"),
        true,
        PartKind::OverlayOverCopy(Vec::new()),
    )];
    let mut next = 0;
    while next < parts.len() {
        if matches!(parts[next].kind, PartKind::OverlayOverCopy(_)) {
            let (copies, entries) = planner.take_apart(&parts[next].path)?;
            parts[next].kind = PartKind::OverlayOverCopy(copies);
            parts.extend(entries);
        }
        next += 1;
    }
    Ok(parts)
}

struct Planner<'a> {
    /// Where something is mounted, and what is not to be overlaid.
    interrupted: BTreeSet<PathBuf>,
    visible: HashMap<&'a Path, &'a MountInfo>,
    host: BTreeSet<PathBuf>,
}

impl Planner<'_> {
    fn part(&self, path: PathBuf, is_dir: bool, kind: PartKind) -> Part {
        let mount = path.ancestors().find_map(|dir| self.visible.get(dir));
        let attributes = mount.map_or(MountAttrFlags::empty(), |mount| {
            flags::inherited(&mount.options)
        });
        Part {
            is_dir,
            ..Part::new(path, kind, attributes)
        }
    }

    /// Which entries of the directory `dir` are copied, and what becomes of the others.
    fn take_apart(&self, dir: &Path) -> Result<(Vec<PathBuf>, Vec<Part>), Error> {
        let (mut copies, mut parts) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(dir) {
            // It has gone since its parent was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((copies, parts)),
            other => other.context("list", dir)?,
        };
        for entry in entries {
            let path = entry.context("list", dir)?.path();
            // It may have been removed since, or lie in a directory that is closed to this user.
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            if metadata.is_symlink() {
                copies.push(path);
            } else if self.host.contains(&path) {
                parts.push(self.part(path, metadata.is_dir(), PartKind::Host));
            } else if metadata.is_dir() {
                let kind = self.kind(&path);
                parts.push(self.part(path, true, kind));
            } else if metadata.is_file()
                && metadata.len() <= MAX_COPY
                && !self.visible.contains_key(path.as_path())
                && access(&path, Access::READ_OK).is_ok()
            {
                copies.push(path);
            } else {
                parts.push(self.part(path, false, PartKind::ReadOnly));
            }
        }
        Ok((copies, parts))
    }

    fn kind(&self, dir: &Path) -> PartKind {
        let mount = self.visible.get(dir);
        let pseudo = mount.is_some_and(|mount| PSEUDO.contains(&mount.fs_type.as_str()));
        // What the user may not look into is shown as it is: an overlay would be the user's.
        if pseudo || access(dir, Access::READ_OK | Access::EXEC_OK).is_err() {
            PartKind::ReadOnly
        } else if self.is_interrupted(dir) {
            PartKind::OverlayOverCopy(Vec::new())
        } else {
            PartKind::Overlay
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
    fn only_directories_with_mounts_below_are_split() {
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
        let places = parts(&mounts, &[dir.join("own")]).unwrap();
        let shape = |path: &str| {
            let path = if path.starts_with('/') {
                PathBuf::from(path)
            } else {
                dir.join(path)
            };
            let found = places.iter().position(|place| place.path == path);
            found.map(|at| (at, places[at].kind.clone(), places[at].attributes))
        };
        for (path, expected) in [
            ("/proc", PartKind::Host),
            ("/etc", PartKind::Overlay),
            ("a/mount", PartKind::Overlay),
            ("a/plain", PartKind::Overlay),
            ("a/large", PartKind::ReadOnly),
            ("b", PartKind::Overlay),
            ("c", PartKind::ReadOnly),
            ("own", PartKind::Host),
        ] {
            assert_eq!(shape(path).unwrap().1, expected, "{path}");
        }
        let (at, shell, _) = shape("a").unwrap();
        let PartKind::OverlayOverCopy(mut copies) = shell else {
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
