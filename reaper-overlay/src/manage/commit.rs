//! Making changes of a scope on the host itself.
//!
//! All is copied to the host's filesystems and checked before the first of its files changes; then
//! come renames alone, by a [`Journal`](super::journal). A host or a scope that changes meanwhile
//! ends the commit, with the name of what changed and nothing done.

use std::path::{Path, PathBuf};

use reaper_spec::path_hash;

use super::{
    change::{Change, ChangeKind, changed},
    journal::{Action, DiskPath, Journal, Phase, Step},
    progress::{OnProgress, Progress},
    stage::Stage,
    unchanged::{HostFiles, UpperFiles},
};
use crate::{
    contract::{Error, user::Privilege},
    linux::{
        file_attributes::Attributes,
        files::{exists, make_dir},
        flock::Lock,
        mountinfo,
    },
    store::base::Base,
};

/// Whether [`Overlays::apply_to_host`](super::Overlays::apply_to_host) changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyMode {
    /// Only say what would be done.
    DryRun,
    /// Do it.
    Apply,
}

/// What became of a commit that was killed, or that the machine's end cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovery {
    /// It had not changed anything, or all: what it had left was removed.
    Cleared,
    /// It was finished.
    Finished,
    /// It was undone.
    Undone,
}

/// The commits to the host that are made from one base: one at a time.
pub(super) struct Commits {
    journal: PathBuf,
    /// What the staging directories are called.
    staging: String,
    privilege: Privilege,
    _lock: Lock,
}

impl Commits {
    /// `None` while another commit from this base is under way.
    pub(super) fn lock(base: &Base) -> Result<Option<Self>, Error> {
        let live = base.path.join("live");
        make_dir(&live)?;
        let lock = Lock::try_exclusive(&live.join("commit.lock"))?;
        Ok(lock.map(|lock| Self {
            journal: journal(base),
            staging: format!(".reaper-commit-{}", path_hash(&base.path)),
            privilege: base.privilege,
            _lock: lock,
        }))
    }

    /// The same if a commit has not come to its end, and no process is at it.
    pub(super) fn interrupted(base: &Base) -> Result<Option<Self>, Error> {
        if exists(&journal(base))? {
            Self::lock(base)
        } else {
            // There is nothing to lock for.
            Ok(None)
        }
    }

    /// Finishes or undoes a commit that has not come to its end.
    pub(super) fn recover(&self) -> Result<Option<Recovery>, Error> {
        let Some(mut journal) = Journal::read(&self.journal)? else {
            return Ok(None);
        };
        let recovery = match journal.phase {
            Phase::Staging => {
                journal.clean_up()?;
                Recovery::Cleared
            }
            Phase::Applying => match self.finish(&mut journal, &mut |_| ()) {
                Ok(()) => Recovery::Finished,
                Err(Error::Undone { .. }) => Recovery::Undone,
                Err(error) => return Err(error),
            },
            Phase::Undoing => {
                self.undo(&mut journal)?;
                Recovery::Undone
            }
        };
        Ok(Some(recovery))
    }

    /// Makes the chosen ones of `changes`.
    pub(super) fn commit(
        &self,
        chosen: &[Change],
        on_progress: OnProgress<'_>,
    ) -> Result<(), Error> {
        let (plan, dirs) = plan(chosen, self.privilege);
        if plan.is_empty() {
            return Ok(());
        }
        let mut host = HostFiles::new();
        plan.iter()
            .try_for_each(|part| host.unchanged(part.change).map(drop))?;
        check_mounts(&plan)?;
        let mut journal = Journal::new(&self.journal, self.staging.clone(), &dirs);
        journal.write(Phase::Staging)?;
        let staged = stage(&mut journal, &plan, on_progress).and_then(|steps| {
            journal.steps = steps;
            journal.sync()?;
            let mut host = HostFiles::new();
            plan.iter()
                .try_for_each(|part| host.unchanged(part.change).map(drop))?;
            check_mounts(&plan)?;
            journal.write(Phase::Applying)
        });
        if let Err(error) = staged {
            // The first error is returned; what this one leaves, the next commit removes.
            let _ = journal
                .write(Phase::Staging)
                .and_then(|()| journal.clean_up());
            return Err(error);
        }
        let files = plan.len() as u64;
        let done = self.finish(&mut journal, &mut |path| {
            on_progress(Progress {
                files,
                bytes: 0,
                path,
            });
        });
        match done {
            Err(Error::Undone { source }) => Err(*source),
            done => done,
        }
    }

    /// Does what the journal says. If that fails it is undone.
    fn finish(&self, journal: &mut Journal, each: &mut dyn FnMut(&Path)) -> Result<(), Error> {
        if let Err(error) = journal.apply(each) {
            return match self.undo(journal) {
                Ok(()) => Err(Error::Undone {
                    source: Box::new(error),
                }),
                Err(left) => Err(Error::HalfCommitted {
                    source: Box::new(error),
                    left: Box::new(left),
                    journal: self.journal.clone(),
                }),
            };
        }
        journal.sync()?;
        journal.write(Phase::Staging)?;
        journal.clean_up()
    }

    fn undo(&self, journal: &mut Journal) -> Result<(), Error> {
        // A disk that is too full for it must not keep what was done: then it is undone only now.
        let noted = journal.write(Phase::Undoing);
        journal.undo()?;
        journal.sync()?;
        noted?;
        journal.write(Phase::Staging)?;
        journal.clean_up()
    }
}

fn journal(base: &Base) -> PathBuf {
    base.outliving("commit", &path_hash(&base.path))
}

/// The changes at and below `paths`, and the directories that they need.
pub(super) fn choose(changes: Vec<Change>, paths: &[PathBuf]) -> Result<Vec<Change>, Error> {
    let below = |change: &Change| paths.iter().any(|path| change.path.starts_with(path));
    let wanted: Vec<PathBuf> = changes
        .iter()
        .filter(|change| below(change))
        .map(|change| change.path.clone())
        .collect();
    // Both are sorted: what lies below a directory follows it.
    let makes_way = |change: &Change| {
        matches!(change.kind, ChangeKind::Added | ChangeKind::TypeChanged) && {
            let at = wanted.partition_point(|path| *path < change.path);
            wanted
                .get(at)
                .is_some_and(|path| path.starts_with(&change.path))
        }
    };
    let chosen: Vec<Change> = changes
        .into_iter()
        .filter(|change| below(change) || makes_way(change))
        .collect();
    match chosen.iter().find(|change| change.masked) {
        Some(masked) => Err(Error::Masked {
            path: masked.path.clone(),
        }),
        None => Ok(chosen),
    }
}

/// What is done for one change.
struct Part<'a> {
    change: &'a Change,
    role: Role,
}

enum Role {
    /// Its file, or its directory with what is chosen of it, is staged under this name, and takes
    /// its place.
    Put { staging: usize, name: String },
    /// It is staged as a part of a directory, at this path.
    Inside { staging: usize, path: PathBuf },
    /// It is moved to this name.
    Remove { staging: usize, name: String },
    /// It gets other attributes.
    Set,
}

/// What is done for each change, and in which directories staging directories are needed.
fn plan(chosen: &[Change], privilege: Privilege) -> (Vec<Part<'_>>, Vec<PathBuf>) {
    let mut dirs: Vec<PathBuf> = Vec::new();
    let mut parts = Vec::new();
    // The topmost directory that is staged as a whole.
    let mut top: Option<(&Path, usize, String)> = None;
    for (number, change) in chosen.iter().enumerate() {
        if let Some((path, staging, name)) = &top
            && let Ok(inside) = change.path.strip_prefix(path)
            && change.kind != ChangeKind::Deleted
        {
            let (staging, path) = (*staging, Path::new(name).join(inside));
            parts.push(Part {
                change,
                role: Role::Inside { staging, path },
            });
            continue;
        }
        if change.kind == ChangeKind::AttributesChanged {
            parts.push(Part {
                change,
                role: Role::Set,
            });
            continue;
        }
        let dir = staging_place(change, privilege);
        let staging = dirs.iter().position(|known| *known == dir);
        let staging = staging.unwrap_or_else(|| {
            dirs.push(dir);
            dirs.len() - 1
        });
        let name = number.to_string();
        let role = if change.kind == ChangeKind::Deleted {
            Role::Remove { staging, name }
        } else {
            top = Some((&change.path, staging, name.clone()));
            Role::Put { staging, name }
        };
        parts.push(Part { change, role });
    }
    (parts, dirs)
}

/// The directory in which the staging directory for `change` is made: on the same mount, since
/// files are renamed within a mount only. Other users than root can rarely write to the mount's own.
fn staging_place(change: &Change, privilege: Privilege) -> PathBuf {
    match (privilege, change.path.parent()) {
        (Privilege::User, Some(parent)) => parent.to_owned(),
        _ => change.layer.mount.clone(),
    }
}

/// Fills the staging directories; returns what is to be done then.
fn stage(
    journal: &mut Journal,
    plan: &[Part<'_>],
    on_progress: OnProgress<'_>,
) -> Result<Vec<Step>, Error> {
    journal.make_staging()?;
    let mut stage = Stage::new(journal)?;
    let mut upper = UpperFiles::new();
    let mut host = HostFiles::new();
    let mut bytes = 0;
    let (mut steps, mut last) = (Vec::new(), Vec::new());
    for (files, part) in (0..).zip(plan) {
        let change = part.change;
        let path = &change.path;
        on_progress(Progress { files, bytes, path });
        let step = |action| Step {
            mount: DiskPath::new(&change.layer.mount),
            path: DiskPath::new(change.relative()),
            action,
        };
        match &part.role {
            Role::Put { staging, name } => {
                host.check_mount(change, &stage.root(*staging)?)?;
                let file = upper.unchanged(change)?;
                stage.copy(*staging, &file, Path::new(name), path)?;
                let Some(copy) = stage.copied(*staging, Path::new(name))? else {
                    return Err(changed(&change.path));
                };
                steps.push(step(Action::Put {
                    staging: *staging,
                    name: name.clone(),
                    inode: copy.inode(),
                    replaces: host.unchanged(change)?.map(|there| there.inode()),
                }));
            }
            Role::Inside { staging, path: to } => {
                stage.copy(*staging, &upper.unchanged(change)?, to, path)?;
            }
            Role::Remove { staging, name } => {
                host.check_mount(change, &stage.root(*staging)?)?;
                let Some(there) = host.unchanged(change)? else {
                    return Err(changed(&change.path));
                };
                steps.push(step(Action::Remove {
                    staging: *staging,
                    name: name.clone(),
                    inode: there.inode(),
                }));
            }
            Role::Set => {
                let file = upper.unchanged(change)?;
                let Some(there) = host.unchanged(change)? else {
                    return Err(changed(&change.path));
                };
                // After all renames: they change the times of directories.
                last.push(step(Action::Set {
                    before: Attributes::read(&there)?,
                    after: Attributes::read(&file)?,
                }));
            }
        }
        bytes += change.after.map_or(0, |entry| entry.size);
    }
    stage.finish()?;
    // Nothing of it has changed since it was copied.
    for part in plan.iter().filter(|part| part.change.after.is_some()) {
        upper.unchanged(part.change)?;
    }
    steps.append(&mut last);
    Ok(steps)
}

/// Refuses to replace or remove a directory that has mounts below it: they would go with it.
fn check_mounts(plan: &[Part<'_>]) -> Result<(), Error> {
    let mounts = mountinfo::read()?;
    for part in plan {
        let path = &part.change.path;
        if !matches!(part.role, Role::Put { .. } | Role::Remove { .. }) {
            continue;
        }
        let mut mounts = mounts.iter();
        if let Some(mount) = mounts.find(|mount| mount.mount_point.starts_with(path)) {
            return Err(Error::MountBelow {
                path: path.clone(),
                mount: mount.mount_point.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, fs};

    use rustix::fs::{Mode, mkdirat};

    use super::*;
    use crate::{
        linux::{
            files::remove_tree,
            handle::{Handle, count},
            walk::Cursor,
        },
        manage::{diff::diff, export::export},
        store::{layer_table::Table, paths::ScopePaths},
    };

    fn commits(dir: &Path, privilege: Privilege) -> Commits {
        Commits {
            journal: dir.join("commit.json"),
            staging: ".staged".to_owned(),
            privilege,
            _lock: Lock::try_exclusive(&dir.join("lock")).unwrap().unwrap(),
        }
    }

    /// What a diff, an export, a commit and a removal of a tree of this depth open, and how often they ask
    /// for the path of a file.
    fn counts(depth: usize) -> [(u64, u64); 4] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let host = dir.join("host");
        let scope = crate::Scope::node();
        let paths = ScopePaths::new(&Base::at(&dir.join("base")), &scope);
        let layer = Table::new().layer(&paths, &host);
        fs::create_dir_all(&host).unwrap();
        fs::create_dir_all(&layer.upper).unwrap();
        let mut at = Cursor::new(Handle::of(&layer.upper).unwrap().unwrap());
        for _ in 0..depth {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            let made = at.entry(OsStr::new("d")).unwrap().unwrap();
            at.enter(OsStr::new("d"), made);
        }
        let layers = [layer];
        let mut changes = Vec::new();
        let compared = count::of(|| changes = diff(&layers, &[], &mut |_| ()).unwrap());
        assert!(changes.len() >= depth);
        let archived = count::of(|| {
            export(&layers, &[], Vec::new(), &mut |_| ()).unwrap();
        });
        let commits = commits(&dir, Privilege::Root);
        let chosen = choose(changes, &[host.join("d")]).unwrap();
        let committed = count::of(|| commits.commit(&chosen, &mut |_| ()).unwrap());
        assert!(diff(&layers, &[], &mut |_| ()).unwrap().len() <= 1);
        let removed = count::of(|| remove_tree(&host).unwrap());
        assert!(!host.exists());
        [compared, archived, committed, removed]
    }

    /// What a commit of this many files in a directory of this depth opens, where staging directories are made
    /// beside the files.
    fn opened_for(depth: usize, files: usize) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let host = dir.join("host");
        let paths = ScopePaths::new(&Base::at(&dir.join("base")), &crate::Scope::node());
        let layer = Table::new().layer(&paths, &host);
        let deep: PathBuf = std::iter::repeat_n("d", depth).collect();
        fs::create_dir_all(host.join(&deep)).unwrap();
        fs::create_dir_all(layer.upper.join(&deep)).unwrap();
        for number in 0..files {
            fs::write(layer.upper.join(&deep).join(number.to_string()), "x").unwrap();
        }
        let changes = diff(&[layer], &[], &mut |_| ()).unwrap();
        let chosen = choose(changes, &[host.join(&deep)]).unwrap();
        let commits = commits(&dir, Privilege::User);
        let opened = count::of(|| commits.commit(&chosen, &mut |_| ()).unwrap()).0;
        for number in 0..files {
            assert!(host.join(&deep).join(number.to_string()).is_file());
        }
        opened
    }

    #[test]
    fn a_users_commit_of_one_more_file_opens_as_much_at_any_depth() {
        let more = [10, 60].map(|depth| opened_for(depth, 20) - opened_for(depth, 10));
        assert_eq!(more[0], more[1]);
    }

    #[test]
    fn the_work_on_a_deep_tree_grows_with_its_depth_not_with_its_square() {
        let found = [60, 120, 180].map(counts);
        for (at, of) in ["diff", "export", "commit", "removal"].iter().enumerate() {
            let opened = found.map(|counts| counts[at].0);
            assert!(opened[0] >= 60, "{of}: {opened:?}");
            let more = [opened[1] - opened[0], opened[2] - opened[1]];
            assert_eq!(more[0], more[1], "{of}: {opened:?}");
            // For each the kernel goes up to the root.
            let named = found.map(|counts| counts[at].1);
            assert_eq!(named, [0; 3], "{of}");
        }
    }
}
