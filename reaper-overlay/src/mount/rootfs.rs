//! The root filesystem of an image, as snapshotters describe it.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};

use super::flags::FLAGS;
use crate::contract::{Context, Error, RootfsMount};

/// What mount(2) takes of options, the NUL at their end included.
const DATA_SIZE: usize = 4096;

/// Mounts `mounts` on the directory `at`, one over the other, in the caller's mount namespace.
///
/// The caller must have a single thread: for an overlay of very many layers the working directory
/// is changed for a moment.
///
/// # Errors
/// What the kernel said of the first mount that failed; none is left then.
pub fn mount_rootfs(mounts: &[RootfsMount], at: &Path) -> Result<(), Error> {
    for (number, wanted) in mounts.iter().enumerate() {
        if let Err(error) = mount_one(wanted, at) {
            // The reason for undoing is what the caller is told.
            let _ = unmount_rootfs(&mounts[..number], at);
            return Err(error);
        }
    }
    Ok(())
}

/// Undoes [`mount_rootfs`]. Idempotent; what is still in use goes away with its last user.
///
/// # Errors
/// What the kernel said; calling again continues.
pub fn unmount_rootfs(mounts: &[RootfsMount], at: &Path) -> Result<(), Error> {
    for _ in mounts {
        match umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno).context("unmount the root filesystem", at),
        }
    }
    Ok(())
}

fn mount_one(wanted: &RootfsMount, at: &Path) -> Result<(), Error> {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in &wanted.options {
        match flag(option) {
            Some(Flag::Set(bits)) => flags |= bits,
            Some(Flag::Clear(bits)) => flags -= bits,
            None => data.push(option.clone()),
        }
    }
    if wanted.typ == "bind" {
        flags |= MsFlags::MS_BIND;
    }
    let _back = shorten_lowerdirs(&mut data).context("shorten the layers of", at)?;
    let data = data.join(",");
    let mounted = |flags| {
        mount(
            Some(wanted.source.as_str()),
            at,
            Some(wanted.typ.as_str()),
            flags,
            Some(data.as_str()),
        )
        .context("mount the root filesystem on", at)
    };
    mounted(flags)?;
    // A bind takes no other flags when it is made.
    let rest = flags - MsFlags::MS_BIND - MsFlags::MS_REC;
    if flags.contains(MsFlags::MS_BIND) && !rest.is_empty() {
        let changed = mounted(rest | MsFlags::MS_BIND | MsFlags::MS_REMOUNT);
        if changed.is_err() {
            // The reason for undoing is what the caller is told.
            let _ = umount2(at, MntFlags::MNT_DETACH);
        }
        return changed;
    }
    Ok(())
}

enum Flag {
    Set(MsFlags),
    Clear(MsFlags),
}

fn flag(option: &str) -> Option<Flag> {
    use Flag::{Clear, Set};
    Some(match option {
        "defaults" => Set(MsFlags::empty()),
        "bind" => Set(MsFlags::MS_BIND),
        "rbind" => Set(MsFlags::MS_BIND.union(MsFlags::MS_REC)),
        "sync" => Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Set(MsFlags::MS_DIRSYNC),
        "noatime" => Set(MsFlags::MS_NOATIME),
        "atime" => Clear(MsFlags::MS_NOATIME),
        "relatime" => Set(MsFlags::MS_RELATIME),
        "norelatime" => Clear(MsFlags::MS_RELATIME),
        "strictatime" => Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Clear(MsFlags::MS_STRICTATIME),
        _ => {
            let mut known = FLAGS.iter().filter(|flag| flag.name != "nosymfollow");
            let flag = known.find(|flag| flag.name == option || flag.inverse == option)?;
            let bits = MsFlags::from_bits_retain(flag.ms.bits().into());
            if flag.name == option {
                Set(bits)
            } else {
                Clear(bits)
            }
        }
    })
}

/// The working directory as it was, once this is dropped.
struct RestoreCwd(PathBuf);

impl Drop for RestoreCwd {
    fn drop(&mut self) {
        // It was there a moment ago, and a monitor needs none.
        let _ = env::set_current_dir(&self.0);
    }
}

/// Names the layers of an overlay relative to their common folder, where their names are too long
/// for mount(2), and enters that folder.
fn shorten_lowerdirs(data: &mut [String]) -> io::Result<Option<RestoreCwd>> {
    const LAYERS: &str = "lowerdir=";
    let length: usize = data.iter().map(|option| option.len() + 1).sum();
    if length <= DATA_SIZE {
        return Ok(None);
    }
    let Some(option) = data.iter_mut().find(|option| option.starts_with(LAYERS)) else {
        return Ok(None);
    };
    let layers: Vec<&Path> = option[LAYERS.len()..].split(':').map(Path::new).collect();
    let Some(common) = common_folder(&layers) else {
        return Ok(None);
    };
    let short: Vec<_> = layers
        .iter()
        .map(|layer| layer.strip_prefix(common).unwrap_or(layer))
        .map(|layer| layer.display().to_string())
        .collect();
    let back = RestoreCwd(env::current_dir()?);
    env::set_current_dir(common)?;
    *option = format!("{LAYERS}{}", short.join(":"));
    Ok(Some(back))
}

fn common_folder<'a>(paths: &[&'a Path]) -> Option<&'a Path> {
    let mut ancestors = paths.first()?.ancestors().skip(1);
    ancestors
        .find(|folder| folder.is_absolute() && paths.iter().all(|path| path.starts_with(folder)))
}
