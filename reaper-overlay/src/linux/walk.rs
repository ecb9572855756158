//! Walking a directory tree that containers may be changing meanwhile.
//!
//! By descriptors: a directory that is swapped for a symlink is not followed, and only the name of
//! one entry goes to the kernel at a time, so that a tree may be deeper than a path is long
//! (path_resolution(7)). A few directories are open at a time, whatever the depth: the way back is
//! `..`, and whether it leads to where the walk came from is checked. What is removed meanwhile is
//! skipped.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use super::handle::{FileId, Handle};
use crate::contract::{Context, Error};

/// How many of the directories on the way are open.
const OPEN: usize = 16;

/// A directory below a root, and the way back.
#[derive(Debug)]
pub(crate) struct Cursor {
    root: Handle,
    levels: Vec<Level>,
    /// The path of the directory at which the cursor is, from the root.
    at: Vec<u8>,
    /// How many of the levels were still in each other when they were last looked for: no search is made for
    /// one below, or a tree that is moved away would be searched from its root once a level.
    intact: usize,
}

#[derive(Debug)]
struct Level {
    /// The length of its path.
    end: usize,
    id: FileId,
    /// Of the last ones, and of that at which the cursor is.
    handle: Option<Handle>,
}

impl Cursor {
    pub(crate) fn new(root: Handle) -> Self {
        Self {
            root,
            levels: Vec::new(),
            at: Vec::new(),
            intact: 0,
        }
    }

    /// How many directories below the root the cursor is.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Where the cursor is, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        joined(&self.root.path(), Path::new(OsStr::from_bytes(&self.at)))
    }

    /// The directory at which the cursor is.
    pub(crate) fn dir(&self) -> &Handle {
        let last = self.levels.last().and_then(|level| level.handle.as_ref());
        last.unwrap_or(&self.root)
    }

    /// The entry `name` of that directory.
    pub(crate) fn entry(&self, name: &OsStr) -> Result<Option<Handle>, Error> {
        Handle::at(self.dir().as_fd(), name).with_context("open", || self.dir().path().join(name))
    }

    /// Goes on to `dir`, the entry `name` of the directory at which the cursor is.
    pub(crate) fn enter(&mut self, name: &OsStr, dir: Handle) {
        if !self.levels.is_empty() {
            self.at.push(b'/');
        }
        self.at.extend(name.as_bytes());
        self.levels.push(Level {
            end: self.at.len(),
            id: dir.id(),
            handle: Some(dir),
        });
        if let Some(far) = self.levels.len().checked_sub(OPEN + 1) {
            self.levels[far].handle = None;
        }
        self.intact = self.levels.len();
    }

    /// Goes back. False if the directory from which the cursor came is no longer where it was; then
    /// it is to be left as well.
    pub(crate) fn leave(&mut self) -> io::Result<bool> {
        let Some(left) = self.levels.pop() else {
            return Ok(true);
        };
        let end = self.levels.last().map_or(0, |level| level.end);
        self.at.truncate(end);
        let Some(Level { handle, id, .. }) = self.levels.last() else {
            return Ok(true);
        };
        if handle.is_some() {
            return Ok(true);
        }
        if self.levels.len() > self.intact {
            return Ok(false);
        }
        let up = left
            .handle
            .map(|left| Handle::at(left.as_fd(), OsStr::new("..")));
        let back = match up.transpose()?.flatten() {
            Some(back) if back.id() == *id => Some(back),
            // The directory that was left has been moved.
            _ => self.find_anew()?,
        };
        let found = back.is_some();
        if let Some(last) = self.levels.last_mut() {
            last.handle = back;
        }
        Ok(found)
    }

    /// The directory of the last level, by all names from the root. Where there is none, the last one that
    /// is found is kept for the way back.
    fn find_anew(&mut self) -> io::Result<Option<Handle>> {
        let mut at: Option<Handle> = None;
        let mut start = 0;
        for (number, level) in self.levels.iter().enumerate() {
            let dir = at.as_ref().unwrap_or(&self.root);
            let name = OsStr::from_bytes(&self.at[start..level.end]);
            let found = Handle::at(dir.as_fd(), name)?;
            match found.filter(|found| found.id() == level.id) {
                Some(found) => at = Some(found),
                None => {
                    self.intact = number;
                    if let Some(above) = number.checked_sub(1) {
                        self.levels[above].handle = at;
                    }
                    return Ok(None);
                }
            }
            start = level.end + 1;
        }
        Ok(at)
    }

    /// Goes to the directory that has the entry `path`, a path from the root without `..`. False if
    /// something on the way is no longer there, or no directory; then the cursor is at the root or
    /// on the way.
    pub(crate) fn go_to_parent(&mut self, path: &Path) -> Result<bool, Error> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = parent.as_os_str().as_bytes();
        let same = self.levels_on_the_way_to(parent);
        while self.levels.len() > same {
            if !self.leave().context("go back from", path)? {
                // From the root then: all that was known of the way is wrong.
                self.levels.clear();
                self.at.clear();
            }
        }
        let rest = Path::new(OsStr::from_bytes(&parent[self.at.len()..]));
        for component in rest.components() {
            let Component::Normal(name) = component else {
                continue;
            };
            match self.entry(name)? {
                Some(dir) if dir.is_dir() => self.enter(name, dir),
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    /// How many of the levels lead to `path`.
    fn levels_on_the_way_to(&self, path: &[u8]) -> usize {
        // Most often one is the other's parent, which is told without a look at each byte.
        let alike = if path.starts_with(&self.at) {
            self.at.len()
        } else if self.at.starts_with(path) {
            path.len()
        } else {
            let pairs = path.iter().zip(&self.at);
            pairs.take_while(|(one, other)| one == other).count()
        };
        self.levels.partition_point(|level| {
            level.end <= alike && path.get(level.end).is_none_or(|&after| after == b'/')
        })
    }

    /// The file at `path`, a path from the root without `..`; `None` if it is gone.
    pub(crate) fn find(&mut self, path: &Path) -> Result<Option<Handle>, Error> {
        let name = path.file_name().unwrap_or(OsStr::new("."));
        if self.go_to_parent(path)? {
            self.entry(name)
        } else {
            Ok(None)
        }
    }
}

/// What is done with what a walk meets.
pub(crate) trait Visitor {
    /// Called for everything below the root, parents before children, siblings by name. `path` is
    /// relative to the root. Returns whether to go into a directory.
    fn visit(&mut self, path: &Path, file: &Handle) -> Result<bool, Error>;

    /// Called after all in a directory has been visited.
    fn leave(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Called if the directory `path` was moved away before all in it has been visited. The rest is
    /// not.
    fn lost(&mut self, _path: &Path) -> Result<(), Error> {
        Ok(())
    }
}

/// A walk on which a function is called for each file, and all directories are gone into.
impl<F: FnMut(&Path, &Handle) -> Result<(), Error>> Visitor for F {
    fn visit(&mut self, path: &Path, file: &Handle) -> Result<bool, Error> {
        self(path, file).map(|()| true)
    }
}

/// Shows `visitor` everything below `root`.
pub(crate) fn walk(root: Handle, visitor: &mut dyn Visitor) -> Result<(), Error> {
    let mut path = PathBuf::new();
    let mut todo = vec![reversed(&root)?];
    let mut cursor = Cursor::new(root);
    while let Some(names) = todo.last_mut() {
        let Some(name) = names.pop() else {
            todo.pop();
            if todo.is_empty() {
                break;
            }
            visitor.leave()?;
            path.pop();
            while !cursor.leave().context("go back from", &path)? {
                visitor.lost(&path)?;
                todo.pop();
                visitor.leave()?;
                path.pop();
            }
            continue;
        };
        let Some(file) = cursor.entry(&name)? else {
            continue;
        };
        path.push(&name);
        if visitor.visit(&path, &file)? && file.is_dir() {
            todo.push(reversed(&file)?);
            cursor.enter(&name, file);
        } else {
            path.pop();
        }
    }
    Ok(())
}

/// The names in a directory, the first one last.
fn reversed(dir: &Handle) -> Result<Vec<OsString>, Error> {
    let mut names = dir.names().with_context("list", || dir.path())?;
    names.reverse();
    Ok(names)
}

/// What `path`, a path from the root of a walk, is where the root is at `root`.
pub(crate) fn joined(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        // Joining nothing would add a slash.
        root.to_owned()
    } else {
        root.join(path)
    }
}

impl AsFd for Cursor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use rustix::fs::{Mode, mkdirat};

    use super::*;
    use crate::linux::handle::count;

    /// Makes `depth` directories in each other, and a file in the last.
    fn make_deep(root: &Path, depth: usize) {
        let mut at = Cursor::new(Handle::of(root).unwrap().unwrap());
        let name = OsStr::new("d");
        for _ in 0..depth {
            mkdirat(&at, name, Mode::RWXU).unwrap();
            let dir = at.entry(name).unwrap().unwrap();
            at.enter(name, dir);
        }
        mkdirat(&at, "last", Mode::RWXU).unwrap();
    }

    #[test]
    fn a_tree_may_be_deeper_than_a_path_is_long() {
        let dir = tempfile::tempdir().unwrap();
        make_deep(dir.path(), 3000);
        fs::create_dir(dir.path().join("e")).unwrap();
        let (mut count, mut longest, mut last) = (0, 0, PathBuf::new());
        walk(
            Handle::of(dir.path()).unwrap().unwrap(),
            &mut |path: &Path, _: &Handle| {
                count += 1;
                longest = longest.max(path.as_os_str().len());
                last = path.to_owned();
                Ok(())
            },
        )
        .unwrap();
        assert_eq!((count, last.as_path()), (3002, Path::new("e")));
        assert!(longest > 4096);
        let mut at = Cursor::new(Handle::of(dir.path()).unwrap().unwrap());
        let mut deep = PathBuf::new();
        (0..3000).for_each(|_| deep.push("d"));
        assert!(at.find(&deep.join("last")).unwrap().is_some());
        assert!(at.find(Path::new("e")).unwrap().is_some());
        assert!(at.find(&deep.join("none")).unwrap().is_none());
        crate::linux::files::remove_tree(&dir.path().join("d")).unwrap();
        assert!(!dir.path().join("d").exists());
    }

    #[test]
    fn a_tree_is_searched_from_its_root_once_however_much_of_it_was_moved_away() {
        const DEPTH: usize = 400;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let deep = |depth: usize| (0..depth).fold(root.clone(), |path, _| path.join("d"));
        fs::create_dir_all(deep(DEPTH)).unwrap();
        fs::write(root.join("z"), "").unwrap();
        struct Seen<M: FnMut()>(M, usize, PathBuf);
        impl<M: FnMut()> Visitor for Seen<M> {
            fn visit(&mut self, path: &Path, _: &Handle) -> Result<bool, Error> {
                if path.components().count() == DEPTH {
                    self.0();
                }
                path.clone_into(&mut self.2);
                Ok(true)
            }
            fn lost(&mut self, _: &Path) -> Result<(), Error> {
                self.1 += 1;
                Ok(())
            }
        }
        // Both are above what is still open then.
        let away = || {
            fs::rename(deep(DEPTH - 50), dir.path().join("lower")).unwrap();
            fs::rename(deep(DEPTH / 2), dir.path().join("upper")).unwrap();
        };
        let mut seen = Seen(away, 0, PathBuf::new());
        let (opened, _) = count::of(|| {
            walk(Handle::of(&root).unwrap().unwrap(), &mut seen).unwrap();
        });
        assert_eq!(seen.2, Path::new("z"), "the rest is seen");
        assert_eq!(seen.1, DEPTH / 2 - 50);
        // Down, and back; the one search leads down to the middle.
        let most = 2 * DEPTH + DEPTH / 2 + 10;
        assert!(opened <= most as u64, "{opened}");
    }

    #[test]
    fn a_cursor_goes_between_names_that_begin_alike() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "a/bb/c", "ab/b/c"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let mut at = Cursor::new(Handle::of(dir.path()).unwrap().unwrap());
        for path in [
            "a/b/c", "a/bb/c", "ab/b/c", "a/b", "a/bb", "a", "ab/b/c", "a//b/./c", "a/bb/c/",
        ] {
            let found = at.find(Path::new(path)).unwrap().unwrap();
            let there = Handle::of(&dir.path().join(path)).unwrap().unwrap();
            assert_eq!(found.id(), there.id(), "{path}");
        }
        assert!(at.find(Path::new("a/b/none/c")).unwrap().is_none());
        assert!(at.find(Path::new("a/bb/c")).unwrap().is_some());
    }

    #[test]
    fn what_is_moved_meanwhile_is_neither_followed_nor_taken_for_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/secret"), "").unwrap();
        let mut deep = root.join("a");
        (0..40).for_each(|_| deep.push("d"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(root.join("a/d/e"), "").unwrap();
        fs::write(root.join("z"), "").unwrap();
        struct Seen<'a>(&'a Path, Vec<PathBuf>, Vec<PathBuf>);
        impl Visitor for Seen<'_> {
            fn visit(&mut self, path: &Path, _: &Handle) -> Result<bool, Error> {
                if path.components().count() == 40 {
                    // All but the last few directories are closed by now.
                    fs::rename(self.0.join("root/a/d"), self.0.join("moved")).unwrap();
                    symlink(self.0.join("outside"), self.0.join("root/a/d")).unwrap();
                }
                self.1.push(path.to_owned());
                Ok(true)
            }
            fn lost(&mut self, path: &Path) -> Result<(), Error> {
                self.2.push(path.to_owned());
                Ok(())
            }
        }
        let mut seen = Seen(dir.path(), Vec::new(), Vec::new());
        walk(Handle::of(&root).unwrap().unwrap(), &mut seen).unwrap();
        assert_eq!(seen.1.last().unwrap(), Path::new("z"));
        assert!(!seen.1.iter().any(|path| path.ends_with("secret")));
        assert_eq!(seen.2, [] as [PathBuf; 0], "it was found by `..`");
        assert!(seen.1.contains(&PathBuf::from("a/d/e")));
    }
}
