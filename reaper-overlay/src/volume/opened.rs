//! One volume: taken from the host's namespace, mounted in its container's own.
//!
//! Where the kernel lets a tree go from one mount namespace to another, it is taken when the view is
//! prepared. Where it does not, it is found again by its path, from within the container's namespace
//! as long as that still shows the host's root.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use reaper_spec::Mount;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, open},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
        move_mount, open_tree,
    },
};

use super::{nested, options::Options, request::Wish};
use crate::{
    contract::{Context, Error},
    linux::syscall::{self, MountAttr},
    mount::{
        attributes,
        bind::bind,
        image::Image,
        interface::{Interface, Recursion},
    },
};

/// Where the image's root is shown in the mode `at`.
pub(crate) const IMAGE_ROOT: &str = "/.reaper-image";

/// The bind that shows the root of an image, read-only.
pub(crate) fn image_mount(image: &Image, destination: PathBuf) -> Mount {
    Mount {
        destination,
        kind: Some("bind".to_owned()),
        source: Some(image.root.clone()),
        options: vec!["rbind".to_owned(), "rro".to_owned()],
    }
}

/// What the steps are called in which the kernel may refuse a volume.
pub(crate) const OPEN_SOURCE: &str = "open the source";

pub(crate) const MAKE_FILESYSTEM: &str = "make a filesystem for";

pub(crate) const SET_OPTIONS: &str = "set the options of the mount on";

/// One volume.
#[derive(Debug)]
pub(crate) struct Volume {
    content: Content,
    options: Options,
    interface: Interface,
    /// What it shows, by way of the host: writable also where the volume is not.
    source: Option<OwnedFd>,
    /// In the view, symlinks resolved as far as the scope goes.
    pub(crate) destination: PathBuf,
    pub(crate) directory: bool,
    /// The volume in whose own filesystem its mount point is, to be made when both are mounted.
    inside: Option<PathBuf>,
}

#[derive(Debug)]
enum Content {
    /// Detached from the host's tree.
    Tree(OwnedFd),
    /// Bound from here.
    Path(PathBuf),
    /// Mounted on its root first.
    Image(Image),
    /// A filesystem of its own.
    New(Mount),
}

impl Volume {
    /// Takes what `mount` names, or makes it, as far as `interface` can.
    pub(crate) fn open(mount: &Mount, interface: Interface) -> Result<Self, Error> {
        let wish = Wish::of(mount)?;
        let classic = interface == Interface::Classic;
        let (content, source) = match wish.bound()? {
            Some((path, _)) if classic => {
                refuse_shared(&wish)?;
                (Content::Path(path.to_owned()), Some(open_source(path)?))
            }
            Some((path, recursion)) => {
                let tree = clone_tree(path, recursion)?;
                (Content::Tree(tree), Some(open_source(path)?))
            }
            None if classic => (Content::New(mount.clone()), None),
            None => (Content::Tree(new_filesystem(mount, &wish.options)?), None),
        };
        let shown = match &content {
            Content::Tree(tree) => Some(tree),
            _ => source.as_ref(),
        };
        let directory = match shown.map(fstat) {
            Some(stat) => {
                let stat = stat.context("stat the source of", &wish.destination)?;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            }
            // The root of a filesystem.
            None => true,
        };
        Self::new(wish, content, source, directory, interface).with_options()
    }

    /// The root of an image, read-only.
    pub(crate) fn image(
        image: &Image,
        destination: PathBuf,
        interface: Interface,
    ) -> Result<Self, Error> {
        let mount = image_mount(image, destination);
        if image.is_there() {
            return Self::open(&mount, interface);
        }
        let content = match interface {
            Interface::Classic => Content::Image(image.clone()),
            _ => Content::Tree(image.detached()?),
        };
        Self::new(Wish::of(&mount)?, content, None, true, interface).with_options()
    }

    /// One that another process has opened, with the same interface.
    pub(crate) fn of_tree(
        wish: Wish<'_>,
        tree: OwnedFd,
        source: Option<OwnedFd>,
        directory: bool,
        interface: Interface,
    ) -> Self {
        Self::new(wish, Content::Tree(tree), source, directory, interface)
    }

    fn new(
        wish: Wish<'_>,
        content: Content,
        source: Option<OwnedFd>,
        directory: bool,
        interface: Interface,
    ) -> Self {
        Self {
            content,
            options: wish.options,
            interface,
            source,
            destination: wish.destination,
            directory,
            inside: None,
        }
    }

    /// Gives a tree its options before anybody sees it, where that can be done.
    fn with_options(self) -> Result<Self, Error> {
        if let (Content::Tree(tree), Interface::Attributes) = (&self.content, self.interface) {
            self.each_option(|recursion, attr| {
                syscall::mount_setattr(tree.as_fd(), recursion == Recursion::All, attr)
            })?;
        }
        Ok(self)
    }

    fn each_option(
        &self,
        change: impl Fn(Recursion, MountAttr) -> io::Result<()>,
    ) -> Result<(), Error> {
        let (propagation, recursion) = self.options.propagation();
        let propagation = MountAttr {
            // A clone of a shared mount is its peer already.
            propagation: match propagation {
                nix::libc::MS_SHARED => 0,
                other => other,
            },
            ..MountAttr::default()
        };
        [
            (recursion, propagation),
            (Recursion::Alone, self.options.attr),
            (Recursion::All, self.options.recursive),
        ]
        .into_iter()
        .filter(|(_, attr)| *attr != MountAttr::default())
        .try_for_each(|(recursion, attr)| change(recursion, attr))
        .context(SET_OPTIONS, &self.destination)
    }

    /// Whether what the host mounts and unmounts in it arrives.
    pub(crate) fn hears_of_the_host(&self) -> bool {
        self.options.propagation().0 != nix::libc::MS_PRIVATE
    }

    /// What it has on the host, if it is not to be counted there.
    pub(crate) fn is_on_host(&self) -> bool {
        self.source.is_some()
    }

    /// It, detached from everything, if it is.
    pub(crate) fn tree(&self) -> Option<BorrowedFd<'_>> {
        match &self.content {
            Content::Tree(tree) => Some(tree.as_fd()),
            _ => None,
        }
    }

    /// Where it can be written to before it is mounted, if it exists already.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd).or(self.tree())
    }

    /// Its mount point is made in the volume on `outer` when it is mounted.
    pub(crate) fn make_inside(&mut self, outer: PathBuf) {
        self.inside = Some(outer);
    }

    /// Finds what is bound from a path, in a namespace that shows the host's root.
    fn find(&self) -> Result<Option<OwnedFd>, Error> {
        let path = match &self.content {
            Content::Tree(_) | Content::New(_) => return Ok(None),
            Content::Path(path) => path,
            Content::Image(image) => {
                image.mount()?;
                &image.root
            }
        };
        let found = open_source(path)?;
        if let Some(source) = &self.source {
            let same = |a: rustix::fs::Stat, b: rustix::fs::Stat| {
                (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
            };
            let (here, there) = (
                fstat(&found).context("stat", path)?,
                fstat(source).context("stat", path)?,
            );
            if !same(here, there) {
                // Another one would be shown in its place.
                let stale = io::Error::from_raw_os_error(nix::libc::ESTALE);
                return Err(stale).context(
                    "find again, since the host's mounts are not shared (`mount --make-rshared /`),",
                    path,
                );
            }
        }
        Ok(Some(found))
    }

    /// Mounts it in the calling process's namespace; `found` is what [`find`] has found.
    pub(crate) fn mount(&self, found: Option<&OwnedFd>) -> Result<(), Error> {
        let to = &self.destination;
        if let Some(outer) = &self.inside {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = open(outer, flags, Mode::empty()).context("open", outer)?;
            let root = root.as_fd();
            nested::make(root, outer, to, self.directory, &mut |_, _, _| Ok(()))?;
        }
        match (&self.content, found) {
            (Content::Tree(tree), _) => {
                let flags =
                    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
                move_mount(tree, "", CWD, to, flags).map_err(io::Error::from)
            }
            (Content::New(mount), _) => mount_filesystem(mount, &self.options, to),
            (Content::Path(_) | Content::Image(_), Some(found)) => {
                let from = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
                let recursion = self.options.bind.unwrap_or(Recursion::Alone);
                bind(&from, to, recursion).map_err(io::Error::from)
            }
            (Content::Path(_) | Content::Image(_), None) => Err(io::ErrorKind::NotFound.into()),
        }
        .context("mount the volume on", to)?;
        match (&self.content, self.interface) {
            (Content::Tree(_), Interface::Attributes) => Ok(()),
            _ => self.each_option(|recursion, attr| {
                attributes::change(self.interface, to, recursion, attr)
            }),
        }
    }
}

/// Finds what `volumes` bind from paths, in a namespace that shows the host's root and before the
/// first of them is mounted, which may cover the others.
pub(crate) fn find(volumes: &[Volume]) -> Result<Vec<Option<OwnedFd>>, Error> {
    volumes.iter().map(Volume::find).collect()
}

/// The mounts of a container can be shared with the host only where a tree can go from the one to the
/// other.
fn refuse_shared(wish: &Wish<'_>) -> Result<(), Error> {
    if wish.options.propagation().0 != nix::libc::MS_SHARED {
        return Ok(());
    }
    let missing = io::Error::from_raw_os_error(nix::libc::ENOSYS);
    Err(missing).context(
        "share with the host, without open_tree(2), what is mounted in",
        &wish.destination,
    )
}

/// The source of a bind, by way of the host.
pub(crate) fn open_source(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).context(OPEN_SOURCE, path)
}

fn clone_tree(source: &Path, recursion: Recursion) -> Result<OwnedFd, Error> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursion == Recursion::All {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, source, flags).context(OPEN_SOURCE, source)
}

fn new_filesystem(mount: &Mount, options: &Options) -> Result<OwnedFd, Error> {
    let kind = mount.kind.as_deref().unwrap_or_default();
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

fn mount_filesystem(wanted: &Mount, options: &Options, to: &Path) -> io::Result<()> {
    let kind = wanted.kind.as_deref().unwrap_or_default();
    let source = wanted.source.as_deref().unwrap_or(Path::new(kind));
    let data: Vec<String> = options
        .data
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect();
    let data = std::ffi::CString::new(data.join(","))?;
    Ok(mount(
        source,
        to,
        kind,
        MountFlags::empty(),
        data.as_c_str(),
    )?)
}
