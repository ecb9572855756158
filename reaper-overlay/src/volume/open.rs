//! Opening a volume: what a mount request names is taken from the host's namespace.
//!
//! Where the kernel lets a tree go from one mount namespace to another, it is cloned when the view
//! is prepared. Where it does not, only its path is kept, and [`super::mount`] finds it again from
//! within the container's namespace, as long as that still shows the host's root.
//!
//! To clone a mount takes power over the namespace that it is in, and an ordinary user has none
//! over the host's. So a helper clones it in a copy of the host's mounts that is the user's own,
//! and hands the tree over: it belongs to no namespace and can be mounted in any.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use reaper_spec::{Device, Mount};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, open},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, open_tree,
    },
};

use super::{
    filter::is_name_file, options::Options, refused::explain_refusal, request::MountRequest,
};
use crate::{
    contract::{Context, Error},
    linux::{
        fd_passing,
        handle::fd_link,
        namespace::{Ids, unshare_as},
        syscall::{self, MountAttr},
    },
    mount::{
        image::Image,
        interface::{Interface, Recursion},
    },
};

/// What the steps are called in which the kernel may refuse a volume.
pub(crate) const OPEN_SOURCE: &str = "open the source";
pub(crate) const MAKE_FILESYSTEM: &str = "make a filesystem for";
pub(crate) const SET_OPTIONS: &str = "set the options of the mount on";

/// One volume, opened.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(super) content: Content,
    pub(super) options: Options,
    pub(super) interface: Interface,
    /// What it shows, by way of the host: writable also where the volume is not.
    pub(super) source: Option<OwnedFd>,
    /// In the view, symlinks resolved as far as the scope goes.
    pub(crate) destination: PathBuf,
    pub(crate) directory: bool,
    /// Where the destination is a symlink into the host's trees, it is mounted on the link itself: the host's
    /// resolver replaces the file that the link leads to, and what is mounted on that would go with it.
    pub(crate) stays_on_link: bool,
    /// The volume in whose own filesystem its mount point is, to be made when both are mounted.
    pub(super) inside: Option<PathBuf>,
}

/// What a volume is mounted from.
#[derive(Debug)]
pub(super) enum Content {
    /// A tree that is mounted nowhere.
    Tree(OwnedFd),
    /// Bound from this path of the host.
    Path(PathBuf),
    /// An image, mounted on its root first and bound from there.
    Image(Image),
    /// A filesystem that is made when it is mounted.
    New(Mount),
    /// The same of a device.
    Device(Device),
}

/// Opens what `requests` name, as far as `interface` can.
pub(crate) fn open_all(
    requests: Vec<MountRequest>,
    interface: Interface,
) -> Result<Vec<Volume>, Error> {
    let open = |request| Volume::open(request, interface);
    requests.into_iter().map(open).collect()
}

/// The same in a helper, for a container of an ordinary user who is called `inside` in it.
pub(crate) fn open_all_in_helper(
    requests: Vec<MountRequest>,
    inside: Ids,
) -> Result<Vec<Volume>, Error> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    requests.iter().try_for_each(refuse_propagation)?;
    let sources = requests.iter().map(open_bound);
    let sources = sources.collect::<Result<Vec<_>, Error>>()?;
    let interface = Interface::with_trees();
    let purpose = "open the volumes";
    let opened = fd_passing::from_helper(purpose, "the volumes", requests.len(), || {
        unshare_as(inside)?;
        let (mut trees, mut directories) = (Vec::new(), Vec::new());
        for request in &requests {
            let tree = match request.bound() {
                // A descriptor of the host's mounts is of no use in a copy of them.
                Some((path, recursion)) => clone_tree(CWD, path, recursion, path)?,
                None => new_filesystem(&request.mount, &request.options)?,
            };
            directories.push(is_directory(tree.as_fd(), &request.destination)?);
            set_options(tree.as_fd(), request, interface)?;
            trees.push(tree);
        }
        Ok((trees, directories))
    });
    let (trees, directories) = opened.map_err(|error| explain_refusal(error, &requests))?;
    for ((request, source), tree) in requests.iter().zip(&sources).zip(&trees) {
        if let (Some((path, _)), Some(source)) = (request.bound(), source) {
            expect_same(source.as_fd(), tree.as_fd(), path, "find again")?;
        }
    }
    let opened = requests
        .into_iter()
        .zip(trees)
        .zip(sources)
        .zip(directories);
    Ok(opened
        .map(|(((request, tree), source), directory)| {
            Volume::new(request, Content::Tree(tree), source, directory, interface)
        })
        .collect())
}

impl Volume {
    fn open(request: MountRequest, interface: Interface) -> Result<Self, Error> {
        if let Some(device) = request.device.clone() {
            return Ok(Self::new(
                request,
                Content::Device(device),
                None,
                false,
                interface,
            ));
        }
        let source = match &request.image {
            None => open_bound(&request)?,
            Some(_) => None,
        };
        let content = match (interface, &request.image) {
            (Interface::Classic, Some(image)) => Content::Image(image.clone()),
            (Interface::Classic, None) => match request.bound() {
                Some((path, _)) => {
                    refuse_shared(&request)?;
                    Content::Path(path.to_owned())
                }
                None => Content::New(request.mount.clone()),
            },
            (_, Some(image)) => Content::Tree(image.detached()?),
            (_, None) => Content::Tree(tree_of(&request, source.as_ref())?),
        };
        let shown = match &content {
            Content::Tree(tree) => Some(tree),
            _ => source.as_ref(),
        };
        let directory = match shown {
            Some(shown) => is_directory(shown.as_fd(), &request.destination)?,
            // The root of a filesystem.
            None => true,
        };
        if let Content::Tree(tree) = &content {
            set_options(tree.as_fd(), &request, interface)?;
        }
        Ok(Self::new(request, content, source, directory, interface))
    }

    fn new(
        request: MountRequest,
        content: Content,
        source: Option<OwnedFd>,
        directory: bool,
        interface: Interface,
    ) -> Self {
        Self {
            options: request.options,
            interface,
            source,
            stays_on_link: is_name_file(&request.destination)
                && matches!(content, Content::Tree(_)),
            content,
            destination: request.destination,
            directory,
            inside: None,
        }
    }

    /// Whether it cannot be bound elsewhere, itself or anything in it.
    pub(crate) fn is_unbindable(&self) -> bool {
        self.options.propagation().0 == nix::libc::MS_UNBINDABLE
    }

    /// Whether what the host mounts and unmounts in it is mounted and unmounted in the container.
    pub(crate) fn receives_propagation(&self) -> bool {
        self.options.propagation().0 != nix::libc::MS_PRIVATE
    }

    /// Whether mount points made in it are on the host. A filesystem that was made for it is not.
    pub(crate) fn is_on_host(&self) -> bool {
        self.source.is_some()
    }

    /// Where mount points can be made in it before it is mounted, if it exists already.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        let tree = match &self.content {
            Content::Tree(tree) => Some(tree),
            _ => None,
        };
        self.source.as_ref().or(tree).map(AsFd::as_fd)
    }

    /// Has its mount point made in the volume on `outer` when it is mounted.
    pub(crate) fn nest_in(&mut self, outer: PathBuf) {
        self.inside = Some(outer);
    }
}

/// The source of a bind, by way of the host.
pub(super) fn open_source(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    // As a directory, so that the kernel mounts there what automount has for it, as mount(2) would.
    open(path, flags | OFlags::DIRECTORY, Mode::empty())
        .or_else(|errno| match errno {
            Errno::NOTDIR => open(path, flags, Mode::empty()),
            errno => Err(errno),
        })
        .context(OPEN_SOURCE, path)
}

/// Opens what `request` binds, and checks that it may. From here on it is this descriptor that counts: a path
/// that other processes can change would have to be checked again wherever it is followed.
fn open_bound(request: &MountRequest) -> Result<Option<OwnedFd>, Error> {
    let Some((path, _)) = request.bound() else {
        return Ok(None);
    };
    let source = open_source(path)?;
    if !request.allowed.is_empty() {
        let real = fs::read_link(fd_link(&source)).context("read the path of", path)?;
        for allowed in &request.allowed {
            allowed.check_opened(&request.mount, &real)?;
        }
    }
    Ok(Some(source))
}

/// Opens what `request` asks for as a tree that is mounted nowhere; `source` is what it binds.
fn tree_of(request: &MountRequest, source: Option<&OwnedFd>) -> Result<OwnedFd, Error> {
    match (request.bound(), source) {
        (Some((path, recursion)), Some(source)) => {
            clone_tree(source.as_fd(), Path::new(""), recursion, path)
        }
        _ => new_filesystem(&request.mount, &request.options),
    }
}

/// Clones what is at `path` in `dir`, or `dir` itself; errors call it `name`.
fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &Path,
    recursion: Recursion,
    name: &Path,
) -> Result<OwnedFd, Error> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if recursion == Recursion::All {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, path, flags).context(OPEN_SOURCE, name)
}

/// Refuses what was opened for `path` a second time if it is another file than the first time.
pub(super) fn expect_same(
    first: BorrowedFd<'_>,
    second: BorrowedFd<'_>,
    path: &Path,
    operation: &'static str,
) -> Result<(), Error> {
    let first = fstat(first).context("stat", path)?;
    let second = fstat(second).context("stat", path)?;
    if (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino) {
        return Ok(());
    }
    // Another one would be shown in its place.
    let stale = io::Error::from_raw_os_error(nix::libc::ESTALE);
    Err(stale).context(operation, path)
}

fn new_filesystem(mount: &Mount, options: &Options) -> Result<OwnedFd, Error> {
    let kind = mount.typ.as_deref().unwrap_or_default();
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        if let Some(source) = &mount.source {
            fsconfig_set_string(context, "source", source.as_path())?;
        }
        for (key, value) in &options.data {
            match value {
                Some(value) => fsconfig_set_string(context, key.as_str(), value.as_str())?,
                None => fsconfig_set_flag(context, key.as_str())?,
            }
        }
        fsconfig_create(context)?;
        fsmount(
            context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::empty(),
        )
    };
    make().context(MAKE_FILESYSTEM, &mount.destination)
}

fn is_directory(shown: BorrowedFd<'_>, destination: &Path) -> Result<bool, Error> {
    let stat = fstat(shown).context("stat the source of", destination)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Gives a tree its options before it is visible anywhere, where `interface` can do that.
fn set_options(
    tree: BorrowedFd<'_>,
    request: &MountRequest,
    interface: Interface,
) -> Result<(), Error> {
    // What is read-only could not be filled.
    if interface != Interface::Attributes || request.options.copy_up {
        return Ok(());
    }
    apply_options(&request.options, &request.destination, |recursion, attr| {
        syscall::mount_setattr(tree, recursion == Recursion::All, attr)
    })
}

/// Calls `change` for each change that `options` ask for, in order.
pub(super) fn apply_options(
    options: &Options,
    destination: &Path,
    change: impl Fn(Recursion, MountAttr) -> io::Result<()>,
) -> Result<(), Error> {
    let (propagation, recursion) = options.propagation();
    let propagation = MountAttr {
        // A clone of a shared mount is its peer already, and stays so.
        propagation,
        ..MountAttr::default()
    };
    [
        (recursion, propagation),
        (Recursion::Alone, options.attr),
        (Recursion::All, options.recursive),
    ]
    .into_iter()
    .filter(|(_, attr)| *attr != MountAttr::default())
    .try_for_each(|(recursion, attr)| change(recursion, attr))
    .context(SET_OPTIONS, destination)
}

/// The mounts of a container can be shared with the host only where a tree can go from the one to
/// the other.
fn refuse_shared(request: &MountRequest) -> Result<(), Error> {
    if request.options.propagation().0 != nix::libc::MS_SHARED {
        return Ok(());
    }
    let missing = io::Error::from_raw_os_error(nix::libc::ENOSYS);
    Err(missing).context(
        "share with the host, without open_tree(2), what is mounted in",
        &request.destination,
    )
}

/// Nothing that an ordinary user mounts reaches the host.
fn refuse_propagation(request: &MountRequest) -> Result<(), Error> {
    match request.options.propagation {
        Some((nix::libc::MS_SHARED, _)) => Err(Error::NeedsRoot {
            what: format!(
                "the mount on {} with propagation to the host (shared, rshared)",
                request.destination.display()
            ),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
