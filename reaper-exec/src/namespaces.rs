//! Namespaces that a container joins (runtime-spec, config-linux.md, "Namespaces").
//!
//! They are opened when the container is created and kept for the processes that are added to it: a path
//! may be gone by then, and the process that it named another.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    thread,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::geteuid,
};
use reaper_spec::{NamespaceKind, NamespacePath, is_engines_sysctl};

use crate::procfs;

/// A namespace that is not the host's.
#[derive(Debug)]
pub(crate) struct Namespace {
    kind: NamespaceKind,
    path: String,
    file: File,
}

/// A namespace that cannot be joined, and why.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) step: String,
    pub(crate) source: io::Error,
}

impl From<Refused> for io::Error {
    fn from(Refused { step, source }: Refused) -> Self {
        Self::new(source.kind(), format!("{step}: {source}"))
    }
}

impl Namespace {
    /// Opens those of `paths` that are not the calling process's own.
    ///
    /// # Errors
    /// One cannot be opened, or is of a kind of which a process on the host has the host's.
    pub(crate) fn open_all(paths: &[NamespacePath]) -> Result<Vec<Self>, Refused> {
        let open = |path| Self::open(path).transpose();
        paths.iter().filter_map(open).collect()
    }

    fn open(named: &NamespacePath) -> Result<Option<Self>, Refused> {
        let NamespacePath {
            kind,
            path,
            process,
        } = named;
        let refused = |source| Refused {
            step: format!("join the {kind} namespace {}", path.display()),
            source,
        };
        // To open a FIFO in its place would block.
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(refused)?;
        // Only afterwards it is sure whose file was opened.
        if process.as_ref().is_some_and(|one| !procfs::is_alive(one)) {
            let reason = "the process that it was of has exited";
            return Err(refused(io::Error::other(reason)));
        }
        if is_own(*kind, &file).map_err(refused)? {
            return Ok(None);
        }
        if flag(*kind).is_none() {
            let reason =
                format!("a {kind} namespace is not supported for a process on this machine");
            return Err(refused(io::Error::other(reason)));
        }
        Ok(Some(Self {
            kind: *kind,
            path: path.display().to_string(),
            file,
        }))
    }

    /// Whether it is a network.
    pub(crate) fn is_network(&self) -> bool {
        self.kind == NamespaceKind::Network
    }

    /// Whether it is a pid namespace, which a process cannot change for itself.
    fn is_of_pids(&self) -> bool {
        self.kind == NamespaceKind::Pid
    }

    /// Moves the calling process, which has one thread, into it.
    pub(crate) fn join(&self) -> Result<(), Refused> {
        let flag = flag(self.kind).unwrap_or(CloneFlags::empty());
        setns(&self.file, flag).map_err(|errno| Refused {
            step: format!("join the {} namespace {}", self.kind, self.path),
            source: errno.into(),
        })
    }
}

/// The pid namespace of a container's processes.
///
/// A process is in the one that its parent has chosen for its children before the fork (pid_namespaces(7)). So the
/// monitor chooses it, forks, and takes its choice back: it is the parent of what runs there, and waits for it by
/// the pids of its own namespace.
#[derive(Debug, Default)]
pub(crate) enum PidNamespace {
    /// The host's.
    #[default]
    Host,
    /// One that the first process of the container will be number 1 of, or is by now: then it is open.
    Own(Option<Namespace>),
    /// Another one's.
    Joined(Namespace),
}

impl PidNamespace {
    /// Takes it out of those that are joined; without one there it is the host's, or `new`.
    ///
    /// # Errors
    /// An ordinary user cannot have one: the process that enters the user namespace would have to be the
    /// parent.
    pub(crate) fn take(joined: &mut Vec<Namespace>, new: bool) -> Result<Self, Refused> {
        let at = joined.iter().position(Namespace::is_of_pids);
        let chosen = match at {
            Some(at) => Self::Joined(joined.remove(at)),
            None if new => Self::Own(None),
            None => return Ok(Self::Host),
        };
        match geteuid().is_root() {
            true => Ok(chosen),
            false => Err(Refused {
                step: "choose a pid namespace".to_owned(),
                source: io::Error::other("one of its own is not supported without root"),
            }),
        }
    }

    /// Whether it is another one than the host's.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self, Self::Host)
    }

    /// Whether processes of the container that lose their parent become children of a process that is not
    /// the container's.
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self, Self::Joined(_))
    }

    /// Keeps the namespace that the process `pid`, a child that was not reaped, is number 1 of.
    pub(crate) fn keep(&mut self, pid: u32) -> Result<(), Refused> {
        if let Self::Own(kept @ None) = self {
            let path = format!("/proc/{pid}/ns/pid");
            let file = File::open(&path).map_err(|source| Refused {
                step: "keep the pid namespace".to_owned(),
                source,
            })?;
            *kept = Some(Namespace {
                kind: NamespaceKind::Pid,
                path,
                file,
            });
        }
        Ok(())
    }

    /// Has the children of the calling process, which has one thread, be forked there, until the choice is
    /// taken back.
    pub(crate) fn choose(&self) -> io::Result<ChosenPids> {
        let chosen = match self {
            Self::Host => return Ok(ChosenPids { own: None }),
            Self::Own(None) => Err("make a pid namespace".to_owned()),
            Self::Own(Some(namespace)) | Self::Joined(namespace) => Ok(namespace),
        };
        let own = File::open("/proc/self/ns/pid")?;
        match chosen {
            Ok(namespace) => namespace.join()?,
            Err(step) => unshare(CloneFlags::CLONE_NEWPID).map_err(|errno| Refused {
                step,
                source: errno.into(),
            })?,
        }
        Ok(ChosenPids { own: Some(own) })
    }
}

/// The pid namespace that was chosen for the children of this process.
#[must_use]
pub(crate) struct ChosenPids {
    /// The process's own.
    own: Option<File>,
}

impl ChosenPids {
    /// Has further children be forked in the process's own. Only for the parent: a child is in its own.
    pub(crate) fn take_back(self) -> io::Result<()> {
        match self.own {
            Some(own) => Ok(setns(own, CloneFlags::CLONE_NEWPID)?),
            None => Ok(()),
        }
    }
}

/// What setns(2) calls a kind that processes here may have of their own.
fn flag(kind: NamespaceKind) -> Option<CloneFlags> {
    match kind {
        NamespaceKind::Network => Some(CloneFlags::CLONE_NEWNET),
        NamespaceKind::Ipc => Some(CloneFlags::CLONE_NEWIPC),
        NamespaceKind::Uts => Some(CloneFlags::CLONE_NEWUTS),
        NamespaceKind::Cgroup => Some(CloneFlags::CLONE_NEWCGROUP),
        NamespaceKind::Pid => Some(CloneFlags::CLONE_NEWPID),
        NamespaceKind::Mount | NamespaceKind::User | NamespaceKind::Time => None,
    }
}

/// Whether `file` stands for the namespace that this process is in.
fn is_own(kind: NamespaceKind, file: &File) -> io::Result<bool> {
    let name = match kind {
        NamespaceKind::Network => "net",
        NamespaceKind::Mount => "mnt",
        kind => kind.as_str(),
    };
    let own = fs::metadata(format!("/proc/self/ns/{name}"))?;
    let there = file.metadata()?;
    Ok((own.dev(), own.ino()) == (there.dev(), there.ino()))
}

/// Sets parameters of the kernel in the calling process's namespaces. Idempotent.
///
/// # Errors
/// The first that cannot be set, by its name.
pub(crate) fn set_parameters(parameters: &BTreeMap<String, String>) -> Result<(), Refused> {
    for (name, value) in parameters {
        // No dot is left, so the path leads nowhere else.
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(path, value).map_err(|source| Refused {
            step: format!("set the kernel parameter {name} to {value:?}"),
            source,
        })?;
    }
    Ok(())
}

/// Refuses parameters that would be set in the calling process's own network: a path that a bundle names may
/// stand for that. Those that engines ask for by themselves keep their values there, and are not refused.
///
/// # Errors
/// The first that is the bundle's own, by its name.
pub(crate) fn refuse_in_own_network(parameters: &BTreeMap<String, String>) -> Result<(), Refused> {
    match parameters.keys().find(|name| !is_engines_sysctl(name)) {
        None => Ok(()),
        Some(name) => Err(Refused {
            step: format!("set the kernel parameter {name}"),
            source: io::Error::other("the network that is joined is the node's own"),
        }),
    }
}

/// Sets parameters of the kernel in the network that `path` stands for, and not in the caller's: if it stands for
/// that, those that engines ask for by themselves are left, and others refused. It blocks, and may be repeated.
///
/// # Errors
/// It is no network namespace or cannot be joined, or a parameter cannot be set; the error names it.
pub fn set_network_parameters(
    path: &Path,
    parameters: &BTreeMap<String, String>,
) -> io::Result<()> {
    let set = || {
        let path = NamespacePath {
            kind: NamespaceKind::Network,
            path: path.to_owned(),
            process: None,
        };
        match Namespace::open(&path)? {
            Some(network) => {
                network.join()?;
                set_parameters(parameters)
            }
            None => refuse_in_own_network(parameters),
        }
    };
    // A thread's namespaces are its own, and this one ends here.
    let done = thread::scope(|scope| scope.spawn(set).join());
    let done = done.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked));
    done.map_err(io::Error::from)
}
