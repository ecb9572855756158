//! What security modules of the kernel confine the program by, from its execve(2) on.
//!
//! The kernel keeps it for the next execve(2) of a thread and of all that is forked from it, so it is
//! given last: hooks of the container's creation are the runtime's, not the container's. The files are
//! opened before, by the node's own `/proc`.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::Path,
};

use nix::{errno::Errno, sys::wait::waitpid};
use reaper_spec::SecurityLabels;

use super::step::{Failed, Step as _};
use crate::{channel, protocol::ChildReport, selinux, sys};

/// What is written where, and the name of that step.
struct Label {
    file: File,
    text: String,
    step: String,
    /// The error by which the kernel says that it does not know it, and what that means.
    unknown: (io::ErrorKind, &'static str),
}

/// The labels of a process that are still to be given.
pub(super) struct Labels(Vec<Label>);

impl Labels {
    /// Sees what the kernel has for the labels.
    pub(super) fn open(labels: &SecurityLabels) -> Result<Self, Failed> {
        let mut opened = Vec::new();
        if let Some(profile) = &labels.apparmor_profile {
            let step = format!("set the AppArmor profile {profile}");
            if let Some(file) = apparmor(profile).step(&step)? {
                opened.push(Label {
                    file,
                    text: format!("exec {profile}"),
                    step,
                    unknown: (
                        io::ErrorKind::NotFound,
                        "the kernel has no profile of this name",
                    ),
                });
            }
        }
        if let Some(label) = &labels.selinux_label {
            let step = format!("set the SELinux label {label}");
            opened.push(Label {
                file: selinux().step(&step)?,
                text: label.clone(),
                step,
                unknown: (
                    io::ErrorKind::InvalidInput,
                    "the kernel's policy has no such label",
                ),
            });
        }
        Ok(Self(opened))
    }

    /// Sees whether the kernel takes them, without giving them to this process. Where no other process can be
    /// made, as under a limit of one, that is seen when they are given.
    pub(super) fn try_out(labels: &SecurityLabels) -> Result<(), Failed> {
        const STEP: &str = "try the security labels";
        if labels.apparmor_profile.is_none() && labels.selinux_label.is_none() {
            return Ok(());
        }
        // Not a thread: the kernel may count one that was joined for some time yet, and a process that has
        // threads cannot join a user namespace (setns(2)).
        let (ours, theirs) = channel::pair().step(STEP)?;
        let pid = match sys::fork() {
            Err(Errno::EAGAIN) => return Ok(()),
            forked => forked.step(STEP)?,
        };
        let Some(pid) = pid else {
            let tried = Self::open(labels).and_then(Self::give);
            let failed = tried.err().map(ChildReport::from);
            // If this cannot be sent, the parent reads the end of the socket.
            let _ = channel::send(theirs.as_fd(), &failed, &[]);
            sys::exit_now(0)
        };
        drop(theirs);
        let report = channel::receive(ours.as_fd());
        waitpid(pid, None).step(STEP)?;
        let ended = || io::Error::other("a process ended early");
        let failed: Option<ChildReport> = report
            .and_then(|report| report.ok_or_else(ended)?.parse())
            .step(STEP)?;
        let Some(ChildReport::Failed {
            step,
            message,
            errno,
        }) = failed
        else {
            return Ok(());
        };
        let source = errno.map_or_else(|| io::Error::other(message), io::Error::from_raw_os_error);
        Err(Failed { step, source })
    }

    /// Gives them to the program that this thread executes next. It is the thread that has opened
    /// them.
    pub(super) fn give(self) -> Result<(), Failed> {
        for mut label in self.0 {
            let (kind, reason) = label.unknown;
            let given = label.file.write_all(label.text.as_bytes());
            let given = given.map_err(|error| match error.kind() == kind {
                true => io::Error::other(reason),
                false => error,
            });
            given.step(label.step)?;
        }
        Ok(())
    }
}

fn for_writing(path: &str) -> io::Result<File> {
    File::options().write(true).open(path)
}

fn apparmor(profile: &str) -> io::Result<Option<File>> {
    /// Linux 5.8, with other modules beside it; before, and where it is the only one.
    const FILES: [&str; 2] = [
        "/proc/thread-self/attr/apparmor/exec",
        "/proc/thread-self/attr/exec",
    ];
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.first() == Some(&b'Y')) {
        return match profile {
            // So it is.
            "unconfined" => Ok(None),
            _ => Err(selinux::missing("AppArmor")),
        };
    }
    let file = match Path::new(FILES[0]).exists() {
        true => FILES[0],
        false => FILES[1],
    };
    for_writing(file).map(Some)
}

fn selinux() -> io::Result<File> {
    match selinux::is_enabled() {
        true => for_writing("/proc/thread-self/attr/exec"),
        false => Err(selinux::missing("SELinux")),
    }
}
