//! What the kernel offers, tried out: it may be built without it, and a sandbox around this program
//! may forbid it.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use reaper_exec::{
    cgroup::{Claim, ContainerCgroup, Hierarchy},
    procfs,
};
use reaper_overlay::make_read_only;
use reaper_spec::{CgroupMode, Config};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, inotify::CreateFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_flag, fsmount, fsopen, move_mount, open_tree,
    },
    process::PidfdFlags,
};

use super::super::finding::CheckResult;
use crate::sys::probe;

/// What becomes of containers without an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// There are none.
    Nothing,
    /// They can do less.
    Less(&'static str),
    /// They can do the same, by what stands in for it.
    Same(&'static str),
}

const TREES: Without =
    Without::Less("volumes come by mount(2), none with Bidirectional propagation");

/// One interface, and what the kernel said to it.
#[derive(Debug, Clone, Copy)]
struct Tried {
    name: &'static str,
    refusal: Option<Errno>,
    without: Without,
}

pub(super) fn examine(config: &Config) -> CheckResult {
    let mut tried = processes();
    tried.extend(files());
    // Without root these need a user namespace first: the trial makes one.
    if nix::unistd::geteuid().is_root() {
        tried.extend(mounts());
    }
    if config.cgroups != CgroupMode::Off
        && let Ok(Some(hierarchy)) = Hierarchy::find()
    {
        tried.push(cgroup_kill(&hierarchy));
    }
    judge(&tried, is_filtered())
}

fn tried<T>(name: &'static str, answer: Result<T, Errno>, without: Without) -> Tried {
    Tried {
        name,
        refusal: answer.err(),
        without,
    }
}

fn processes() -> Vec<Tried> {
    let pidfd = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
    let signal = match &pidfd {
        Ok(pidfd) => probe::pidfd_send_signal(pidfd.as_fd()),
        Err(errno) => Err(*errno),
    };
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let clone = root.and_then(|root| probe::clone_into_cgroup(root.as_fd()));
    let close = probe::close_range();
    let inotify = rustix::fs::inotify::init(CreateFlags::CLOEXEC);
    vec![
        tried("pidfd_open", pidfd, Without::Nothing),
        tried("pidfd_send_signal", signal, Without::Nothing),
        tried(
            "close_range",
            close,
            Without::Same("descriptors are closed one by one"),
        ),
        tried("inotify_init", inotify, Without::Nothing),
        tried(
            "clone3 with CLONE_INTO_CGROUP",
            clone,
            Without::Same("a process joins its cgroup itself"),
        ),
    ]
}

fn files() -> Vec<Tried> {
    const TABLE: Without = Without::Same("the table of mounts in /proc is read");
    let listed = probe::listmount();
    let stat = listed.and_then(probe::statmount);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let beneath = rustix::fs::openat2(CWD, ".", flags, Mode::empty(), ResolveFlags::BENEATH);
    vec![
        tried("listmount", listed, TABLE),
        tried("statmount", stat, TABLE),
        tried(
            "openat2",
            beneath,
            Without::Less("symlinks on the way to a mount point in a volume are refused"),
        ),
    ]
}

/// A filesystem is made, changed and copied, and mounted nowhere.
fn mounts() -> Vec<Tried> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC);
    let configured = with(&context, |context| fsconfig_create(context.as_fd()));
    let mount = with(&context, |context| {
        fsmount(
            context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    });
    let attributes = with(&mount, |mount| make_read_only(mount.as_fd()).map_err(errno));
    let moved = with(&mount, |mount| {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        // Nothing can be mounted on what is not there, and that is what a kernel with this call says.
        match move_mount(mount, "", CWD, "/proc/self/fd/nothing", flags) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    });
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    vec![
        tried("open_tree", open_tree(CWD, "/", clone), TREES),
        tried("move_mount", moved, TREES),
        tried("fsopen", context, TREES),
        tried("fsconfig", configured, TREES),
        tried("fsmount", mount, TREES),
        tried(
            "mount_setattr",
            attributes,
            Without::Same("volumes get their options by remounts"),
        ),
        tried(
            "overlay's lowerdir+",
            lowerdir_add(),
            Without::Same("the layers go to the kernel as one string of at most a page"),
        ),
    ]
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn with<T, U>(
    there: &Result<T, Errno>,
    call: impl FnOnce(&T) -> Result<U, Errno>,
) -> Result<U, Errno> {
    there.as_ref().map_err(|errno| *errno).and_then(call)
}

/// Whether overlays take their layers one by one. Kernels before 6.5 take any key, and say what is
/// wrong with it only when the overlay is made.
fn lowerdir_add() -> Result<(), Errno> {
    let context: OwnedFd = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    if fsconfig_set_flag(context.as_fd(), "no-option-of-overlay").is_ok() {
        return Err(Errno::INVAL);
    }
    rustix::mount::fsconfig_set_string(context.as_fd(), "lowerdir+", "/")
}

/// Whether a cgroup can be killed as a whole, tried on an empty one that is made for it.
fn cgroup_kill(hierarchy: &Hierarchy) -> Tried {
    let name = format!("reaper/doctor-{}", std::process::id());
    let created = procfs::identify(std::process::id()).ok().and_then(|own| {
        let claim = Claim::new(own, false);
        ContainerCgroup::create(hierarchy, Path::new(&name), &claim).ok()
    });
    let killed = created.map_or(
        // Where none can be made the trial says why.
        Ok(()),
        |cgroup| {
            let path = cgroup.path().join("cgroup.kill");
            // Without `O_CREAT`: to that the kernel says EACCES for a file that is not there.
            let file = fs::File::options().write(true).open(path);
            let killed = file.and_then(|mut file| io::Write::write_all(&mut file, b"1"));
            // One that cannot be removed is found below `leftovers`.
            let _ = cgroup.remove();
            killed.map_err(errno)
        },
    );
    tried(
        "cgroup.kill",
        killed,
        Without::Same("a cgroup is frozen, and its processes are killed one by one"),
    )
}

/// Whether a seccomp filter is in force around this program.
pub(super) fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    fields.any(|(name, value)| name == "Seccomp" && value.trim() == "2")
}

fn judge(tried: &[Tried], filtered: bool) -> CheckResult {
    let works = |one: &&Tried| one.refusal.is_none();
    let names: Vec<_> = tried.iter().filter(works).map(|one| one.name).collect();
    let found = std::iter::once(format!("{} work", names.join(", ")))
        .filter(|_| !names.is_empty())
        .chain(missing(tried))
        .collect::<Vec<_>>()
        .join("; ");
    let lacks = |without: fn(&Without) -> bool| {
        let mut missing = tried.iter().filter(|one| one.refusal.is_some());
        missing.any(|one| without(&one.without))
    };
    let is_full = |one: &Tried| one.name == "inotify_init" && one.refusal == Some(Errno::MFILE);
    if tried.iter().any(is_full) {
        let fix = "this user has no inotify instance left: \
                   `sysctl fs.inotify.max_user_instances=1024`";
        return CheckResult::warning("interfaces", found, fix);
    }
    if lacks(|without| *without == Without::Nothing) {
        let fix = "use a kernel that has them, and allow them in the seccomp filter around this \
                   program";
        return CheckResult::problem("interfaces", found, fix);
    }
    let less = lacks(|without| matches!(without, Without::Less(_)));
    match (less, filtered && lacks(|_| true)) {
        (_, true) => CheckResult::warning(
            "interfaces",
            found,
            "a seccomp filter is in force around this program: allow them in it, or start this \
             program without it",
        ),
        (true, false) => CheckResult::warning(
            "interfaces",
            found,
            "use a kernel that has them, if this is needed",
        ),
        (false, false) => CheckResult::good("interfaces", found),
    }
}

/// What is said of the interfaces that are missing, those that belong together in one.
fn missing(tried: &[Tried]) -> Vec<String> {
    let missing: Vec<_> = tried.iter().filter(|one| one.refusal.is_some()).collect();
    let belong = |a: &&Tried, b: &&Tried| (a.refusal, a.without) == (b.refusal, b.without);
    let say = |group: &[&Tried]| {
        let names: Vec<_> = group.iter().map(|one| one.name).collect();
        let refusal = group[0].refusal.map_or(0, Errno::raw_os_error);
        let without = match group[0].without {
            Without::Nothing => "no container runs without",
            Without::Less(what) | Without::Same(what) => what,
        };
        format!("{}: {}: {without}", names.join(", "), errno_name(refusal))
    };
    missing.chunk_by(belong).map(say).collect()
}

/// The name of an error number, as in errno(3).
pub(super) fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

#[cfg(test)]
mod tests {
    use super::{super::super::finding::Level, *};

    fn one(name: &'static str, refusal: Option<Errno>, without: Without) -> Tried {
        Tried {
            name,
            refusal,
            without,
        }
    }

    #[test]
    fn missing_interface_is_reported_with_errno_and_fallback() {
        let same = Without::Same("the table is read");
        let works = one("pidfd_open", None, Without::Nothing);
        let all = judge(&[works, one("listmount", None, same)], true);
        assert_eq!(all.level, Level::Good);
        assert_eq!(all.found, "pidfd_open, listmount work");
        let old = [works, one("listmount", Some(Errno::NOSYS), same)];
        let found = judge(&old, false);
        assert_eq!(found.level, Level::Good);
        assert_eq!(
            found.found,
            "pidfd_open work; listmount: ENOSYS: the table is read"
        );
        let filtered = judge(&old, true);
        assert_eq!(filtered.level, Level::Warning);
        assert!(filtered.fix.unwrap().contains("seccomp"));
    }

    #[test]
    fn missing_required_interface_is_problem_and_optional_one_warning() {
        let denied = judge(
            &[one("pidfd_open", Some(Errno::PERM), Without::Nothing)],
            false,
        );
        assert_eq!(denied.level, Level::Problem);
        assert!(
            denied.found.starts_with("pidfd_open: EPERM: "),
            "{denied:?}"
        );
        let old = judge(&[one("open_tree", Some(Errno::NOSYS), TREES)], false);
        assert_eq!(old.level, Level::Warning);
        assert!(old.found.contains("Bidirectional"));
        let full = judge(
            &[one("inotify_init", Some(Errno::MFILE), Without::Nothing)],
            false,
        );
        assert_eq!(full.level, Level::Warning);
        assert!(full.fix.unwrap().contains("max_user_instances"));
    }
}
