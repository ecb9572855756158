//! The volumes of an ordinary user's container.
//!
//! Who clones a mount has to have power over the mounts that it is among, and a user has none over
//! the host's. So a helper clones them in a copy of the host's mounts that is the user's own. What
//! it hands over belongs to no namespace, and can be mounted in any.

use std::path::Path;

use reaper_spec::{ImageMode, Mount};
use rustix::io::Errno;

use super::{
    filter::wanted,
    opened::{
        IMAGE_ROOT, MAKE_FILESYSTEM, OPEN_SOURCE, SET_OPTIONS, Volume, image_mount, open_source,
    },
    request::Wish,
};
use crate::{
    contract::{Context, Error, ViewRequest},
    linux::{
        fd_passing,
        helper::Helper,
        namespace::{self, Ids},
    },
    mount::{
        denied, image,
        interface::{Interface, Recursion},
    },
};

/// Opens the volumes of `request`, without a place for them yet, for a container in which the user
/// is called `inside`.
pub(crate) fn open(request: &ViewRequest, inside: Ids) -> Result<Vec<Volume>, Error> {
    let mut mounts: Vec<Mount> = wanted(request).cloned().collect();
    if request.image == ImageMode::At {
        mounts.push(image_mount(&image::plain(request)?, IMAGE_ROOT.into()));
    }
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    let wishes: Vec<Wish<'_>> = mounts.iter().map(Wish::of).collect::<Result<_, _>>()?;
    wishes.iter().try_for_each(refuse_propagation)?;
    let mut sources = Vec::new();
    for wish in &wishes {
        let source = wish.bound()?.map(|(source, _)| open_source(source));
        sources.push(source.transpose()?);
    }
    let interface = Interface::with_trees();
    let socket = || fd_passing::pair().context("make a socket for", "the volumes");
    let (ours, theirs) = socket()?;
    let directories = Helper::run("open the volumes", || {
        namespace::unshare_as(inside)?;
        let volumes = mounts.iter().map(|mount| Volume::open(mount, interface));
        let volumes = volumes.collect::<Result<Vec<_>, _>>()?;
        let trees: Vec<_> = volumes.iter().filter_map(Volume::tree).collect();
        fd_passing::send(&theirs, &trees).context("hand over", "the volumes")?;
        Ok(volumes.iter().map(|v| v.directory).collect::<Vec<bool>>())
    });
    let directories = directories.map_err(|error| denied::explain(refused(error, &wishes)))?;
    // Whoever waits for more than was sent shall hear of its end.
    drop(theirs);
    let trees = fd_passing::receive(&ours, wishes.len()).context("take over", "the volumes")?;
    let opened = wishes.into_iter().zip(trees).zip(sources).zip(directories);
    Ok(opened
        .map(|(((wish, tree), source), directory)| {
            Volume::of_tree(wish, tree, source, directory, interface)
        })
        .collect())
}

/// Nothing that an ordinary user mounts reaches the host.
fn refuse_propagation(wish: &Wish<'_>) -> Result<(), Error> {
    match wish.options.propagation {
        Some((nix::libc::MS_SHARED, _)) => Err(Error::NeedsRoot {
            what: format!(
                "the mount on {} with propagation to the host (shared, rshared)",
                wish.destination.display()
            ),
        }),
        _ => Ok(()),
    }
}

/// Says of what the kernel refuses to ordinary users what it is.
fn refused(error: Error, wishes: &[Wish<'_>]) -> Error {
    let Error::Helper {
        operation,
        path,
        source,
    } = &error
    else {
        return error;
    };
    let errno = Errno::from_io_error(source).unwrap_or(Errno::IO);
    let to = |wanted: &dyn Fn(&Wish<'_>) -> bool| wishes.iter().find(|wish| wanted(wish));
    let what = match (operation.as_str(), errno) {
        (OPEN_SOURCE, Errno::INVAL) => to(&|wish| is_bind_alone(wish, path)).map(|wish| {
            format!(
                "the mount of {} on {} without what is mounted below it (rbind takes that along)",
                path.display(),
                wish.destination.display()
            )
        }),
        (MAKE_FILESYSTEM, Errno::PERM | Errno::ACCESS) => {
            to(&|wish| wish.mount.destination == *path).map(|wish| {
                let kind = wish.mount.kind.as_deref().unwrap_or_default();
                format!("the {kind} filesystem on {}", path.display())
            })
        }
        (SET_OPTIONS, Errno::PERM) => to(&|wish| wish.destination == *path).map(|wish| {
            format!(
                "the mount on {} with the options {} (the node's own mount forbids them)",
                path.display(),
                wish.mount.options.join(",")
            )
        }),
        _ => None,
    };
    what.map_or(error, |what| Error::NeedsRoot { what })
}

fn is_bind_alone(wish: &Wish<'_>, path: &Path) -> bool {
    matches!(wish.bound(), Ok(Some((source, Recursion::Alone))) if source == path)
}
