//! `node uninstall`.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use reaper_exec::procfs;
use reaper_overlay::{
    Overlays,
    mountinfo::{self, MountInfo},
};
use reaper_state::{Error as StoreError, StateRoot};
use rustix::{
    fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags, open, openat2, unlinkat},
    io::Errno,
    mount::{UnmountFlags, unmount},
};

use super::{
    facts::{Node, lock},
    install::{note_restarted, restart, restart_by, run_steps, show},
    plan::{Facts, Plan, uninstall},
    status::Shims,
};
use crate::{
    args::NodeUninstallArgs,
    commands::{
        context::CommandContext,
        output::{print, remark},
        roots::roots,
    },
    error::{Error, Result},
    logs,
    text::printable,
};

pub(super) fn run(
    call: &CommandContext,
    args: &NodeUninstallArgs,
    out: &mut dyn Write,
) -> Result<()> {
    let node = Node::find(&args.target)?;
    let _lock = lock(&node.place)?;
    let mut facts = node.facts(None, &[])?;
    let mut plan = uninstall(&facts);
    let mut used = in_use(call, args, &node)?;
    for path in facts.record.iter().flat_map(|record| &record.found) {
        remark(&format!(
            "{} stays: there was one before the installation",
            printable(&path.display().to_string())
        ));
    }
    if args.change.dry_run {
        show(out, &facts, &plan)?;
    } else {
        if plan.tells_containerd || facts.is_restart_due() {
            facts.restart = restart(&node, &facts, &args.change)?;
            plan = uninstall(&facts);
        }
        // One could begin since they were counted, and another one as long as containerd has the handlers.
        let may_restart = || in_use(call, args, &node).map(drop);
        carry_out(&node, &facts, &plan, &may_restart, out)?;
        used = in_use(call, args, &node)?;
        run_steps(&node, &plan.afterwards, out)?;
    }
    if node.is_image {
        return Ok(());
    }
    if used > 0 {
        remark(
            "what containers write and their state stays, as some run: `/run` is empty after the next boot",
        );
        return Ok(());
    }
    remove_state(call, args.change.dry_run, out)
}

/// Does it, and restarts containerd if `may_restart` does not refuse it. The record stays where that does not work, for the next call to start it.
pub(super) fn carry_out(
    node: &Node,
    facts: &Facts,
    plan: &Plan,
    may_restart: &dyn Fn() -> Result<()>,
    out: &mut dyn Write,
) -> Result<()> {
    run_steps(node, &plan.steps, out)?;
    let Some(restart) = &facts.restart else {
        return Ok(());
    };
    may_restart()?;
    let outcome = restart_by(restart, out).map_err(|problem| {
        Error::Node(format!(
            "{problem}: containerd may not run, with the configuration from before the installation: see its \
             log, and call this again, which starts it"
        ))
    })?;
    match outcome {
        true => note_restarted(node, out),
        false => Ok(()),
    }
}

/// How many run, which is refused unless it is forced.
fn in_use(call: &CommandContext, args: &NodeUninstallArgs, node: &Node) -> Result<usize> {
    if node.is_image {
        return Ok(0);
    }
    let used = running(call, node, args.force)?;
    if used > 0 && !args.force && !args.change.dry_run {
        return Err(Error::Node(format!(
            "{used} containers or pods of Reaper run: delete those pods (`reaper-runtime list` and \
             `reaper-runtime --namespace k8s.io list` name them), or say --force, which leaves them running"
        )));
    }
    Ok(used)
}

/// How many containers run, and shims of pods. If it is forced, one whose record cannot be read counts as one
/// that runs.
fn running(call: &CommandContext, node: &Node, force: bool) -> Result<usize> {
    let mut running = 0;
    for (_, root) in roots(call)? {
        let found = running_in(call, &root, force);
        running += match found {
            Err(error) if force => unreadable(&root.path().display().to_string(), &error),
            found => found?,
        };
    }
    let shims = match node.record()? {
        Some(record) => Shims::find(&record).all(),
        None => 0,
    };
    Ok(running.max(shims))
}

fn running_in(call: &CommandContext, root: &StateRoot, force: bool) -> Result<usize> {
    let mut running = 0;
    let store = reaper_state::open(call.config.store, root)?;
    for id in store.list()? {
        running += match store.get(&id) {
            Ok(stored) => usize::from(stored.record.process.as_ref().is_some_and(procfs::is_alive)),
            Err(StoreError::NotFound { .. }) => 0,
            Err(error) if force => unreadable(id.as_ref(), &error.into()),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(running)
}

/// Says so, and counts as one.
fn unreadable(what: &str, error: &Error) -> usize {
    remark(&format!(
        "{} is taken for one that runs: {error}",
        printable(what)
    ));
    1
}

/// Removes what no container needs any more: overlays, state, and logs.
fn remove_state(call: &CommandContext, dry_run: bool, out: &mut dyn Write) -> Result<()> {
    let config = &call.config.overlay;
    let overlays = Overlays::new(config);
    for scope in overlays.scopes()? {
        print(out, format_args!("remove the overlay {scope}\n"))?;
        if !dry_run {
            overlays.remove(&scope)?;
        }
    }
    if !dry_run {
        // No container is left that could need them.
        for left in reaper_overlay::find_leftovers(config, &|_| true)? {
            reaper_overlay::remove_leftover(config, &left)?;
        }
    }
    let logs = logs::folder(&call.config);
    for dir in [
        config.base.as_path(),
        call.config.state_root.as_path(),
        &logs,
    ] {
        if !dir.exists() {
            continue;
        }
        if !is_own(dir) {
            remark(&format!(
                "{} may have other files, and stays",
                printable(&dir.display().to_string())
            ));
            continue;
        }
        print(
            out,
            format_args!("remove {}\n", printable(&dir.display().to_string())),
        )?;
        if !dry_run {
            remove_tree(dir)?;
        }
    }
    Ok(())
}

/// Whether the name says whose it is: what is configured could be any directory.
fn is_own(dir: &Path) -> bool {
    let names = dir.components().rev().take(2);
    let mut names = names.map(|name| name.as_os_str().to_string_lossy());
    names.any(|name| name.contains("reaper"))
}

/// Removes a directory but for what others have mounted in it, and the way to that.
fn remove_tree(dir: &Path) -> Result<()> {
    let failed = || Error::io(format!("remove {}", dir.display()));
    while let Some(point) = own_mount(dir)? {
        unmount(&point, UnmountFlags::DETACH)
            .map_err(|error| Error::io(format!("unmount {}", point.display()))(error.into()))?;
    }
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Ok(());
    };
    let parent = open(parent, DIRECTORY, Mode::empty()).map_err(|error| failed()(error.into()))?;
    let mut kept = Vec::new();
    remove_at(&parent, name, dir, &mut kept).map_err(failed())?;
    for path in kept {
        remark(&format!(
            "{} stays, as something is mounted there: unmount it, and remove {}",
            printable(&path.display().to_string()),
            printable(&dir.display().to_string())
        ));
    }
    Ok(())
}

/// The last mount of Reaper's below `dir` that nothing of others is mounted in: that would go with it.
fn own_mount(dir: &Path) -> Result<Option<PathBuf>> {
    let mounts = mountinfo::read()?;
    let seen = mountinfo::visible(&mounts).into_iter();
    let below = seen.filter(|mount| mount.mount_point.starts_with(dir));
    let (own, others): (Vec<&MountInfo>, Vec<&MountInfo>) =
        below.partition(|mount| is_own_mount(mount));
    let holds = |point: &Path| others.iter().any(|it| it.mount_point.starts_with(point));
    let mut points = own.into_iter().rev().map(|mount| &mount.mount_point);
    Ok(points.find(|point| !holds(point)).cloned())
}

/// Whether a mount is one that Reaper makes in its directories: filesystems for its overlays and records, and the
/// namespaces that are kept there.
fn is_own_mount(mount: &MountInfo) -> bool {
    mount.source == "reaper-overlay" || mount.fs_type == "nsfs"
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Removes `name` in `folder`, which is called `path`. The kernel refuses to follow a path into another mount, so
/// that what is mounted at any time keeps its files; where that is, is added to `kept`.
fn remove_at(
    folder: &OwnedFd,
    name: &OsStr,
    path: &Path,
    kept: &mut Vec<PathBuf>,
) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::BUSY) => {
            kept.push(path.to_owned());
            return Ok(());
        }
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let own = match openat2(folder, name, DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::XDEV) => {
            kept.push(path.to_owned());
            return Ok(());
        }
        own => own?,
    };
    let before = kept.len();
    for entry in Dir::read_from(&own)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove_at(&own, name, &path.join(name), kept)?;
        }
    }
    match unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY) if kept.len() > before => Ok(()),
        Err(Errno::BUSY) => {
            kept.push(path.to_owned());
            Ok(())
        }
        removed => Ok(removed?),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::{
        mount::{MsFlags, mount, umount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    #[test]
    fn only_a_directory_that_is_named_after_reaper_is_removed() {
        for own in ["/run/reaper", "/run/reaper/overlay", "/var/log/reaper"] {
            assert!(is_own(Path::new(own)), "{own}");
        }
        for other in ["/", "/run", "/data", "/var/lib/x", "/reaper/a/b"] {
            assert!(!is_own(Path::new(other)), "{other}");
        }
    }

    #[test]
    fn what_others_have_mounted_keeps_its_files() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("reaper");
        let [disk, own, below_own, file] =
            ["a/disk", "own", "own/disk", "file"].map(|it| dir.join(it));
        // Mounts of a thread of its own, which end with it.
        let alone = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, "/", none, private, none).unwrap();
            let tmpfs = |source: &str, at: &Path| {
                fs::create_dir_all(at).unwrap();
                mount(Some(source), at, Some("tmpfs"), MsFlags::empty(), none).unwrap();
                fs::write(at.join("kept"), "").unwrap();
            };
            tmpfs("disk", &disk);
            tmpfs("reaper-overlay", &own);
            fs::create_dir_all(dir.join("gone/x")).unwrap();
            symlink("/", dir.join("gone/link")).unwrap();
            fs::write(&file, "").unwrap();
            mount(
                Some(&disk.join("kept")),
                &file,
                none,
                MsFlags::MS_BIND,
                none,
            )
            .unwrap();
            remove_tree(&dir).unwrap();
            let left = || {
                let entries = fs::read_dir(&dir).unwrap();
                let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
                names.sort();
                names
            };
            assert_eq!(left(), ["a", "file"]);
            assert!(disk.join("kept").exists());
            // One of an administrator keeps the one of Reaper that it is in.
            tmpfs("reaper-overlay", &own);
            tmpfs("disk", &below_own);
            remove_tree(&dir).unwrap();
            assert!(below_own.join("kept").exists());
            for point in [&file, &below_own, &own, &disk] {
                umount(point.as_path()).unwrap();
            }
            // The directory itself.
            tmpfs("disk", &dir);
            remove_tree(&dir).unwrap();
            assert!(dir.join("kept").exists());
            umount(dir.as_path()).unwrap();
            remove_tree(&dir).unwrap();
            assert!(!dir.exists());
        };
        std::thread::scope(|scope| scope.spawn(alone).join().unwrap());
    }
}
