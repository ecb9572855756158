//! SELinux, as far as this process labels what it makes for another one.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt as _},
    path::Path,
};

use reaper_spec::Mount;
use rustix::fs::{XattrFlags, fsetxattr};

/// Filesystems whose files have labels of their own, whatever is asked for.
const LABELLED: [&str; 4] = ["proc", "sysfs", "cgroup", "cgroup2"];

/// The options of mount(8) by which a filesystem's files are labelled.
const CONTEXTS: [&str; 4] = ["context=", "fscontext=", "defcontext=", "rootcontext="];

/// Whether the kernel has it, with a policy loaded.
pub(crate) fn is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The error of who asks for `module` where the kernel has it not.
pub(crate) fn missing(module: &str) -> io::Error {
    io::Error::other(format!("{module} is not enabled on this node"))
}

/// Calls `make`, where keys and keyrings that it makes have this label (proc_pid_attr(5)).
pub(crate) fn label_keys<T>(label: &str, make: impl FnOnce() -> T) -> io::Result<T> {
    /// Of a thread, not of its process.
    const FILE: &str = "/proc/thread-self/attr/keycreate";
    // Without O_CREAT, which a policy need not allow there.
    let file = File::options().write(true).open(FILE)?;
    file.write_all_at(label.as_bytes(), 0)?;
    let made = make();
    file.write_all_at(b"\n", 0)?;
    Ok(made)
}

/// Has those of `mounts` that are filesystems of a container's own, and say nothing of it, have this label.
pub(crate) fn label_mounts(label: &str, mounts: &mut [Mount]) {
    for mount in mounts {
        let kind = mount.typ.as_deref().unwrap_or_default();
        let says = |option: &String| CONTEXTS.iter().any(|context| option.starts_with(context));
        if !mount.is_bind() && !LABELLED.contains(&kind) && !mount.options.iter().any(says) {
            mount.options.push(format!("context={label}"));
        }
    }
}

/// Gives a file this label.
pub(crate) fn label_file(label: &str, file: impl AsFd) -> io::Result<()> {
    Ok(fsetxattr(
        file,
        "security.selinux",
        label.as_bytes(),
        XattrFlags::empty(),
    )?)
}
