//! Devices that the host does not have where a container wants them.
//!
//! One is made in the container's own mount namespace, on a filesystem that is mounted for that moment only, and
//! bound to its place: neither the host nor another container has it.

use std::{
    fs, io,
    os::{
        fd::BorrowedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use reaper_spec::{Device, DeviceType};
use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid, chmod, chown, makedev, mknodat, open},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
};

use crate::{contract::user::Privilege, linux::handle::fd_link};

/// Where the filesystem is mounted: every view has it.
const PLACE: &str = "/dev";

/// The permissions of a device that says none, as with runc.
const MODE: u32 = 0o666;

/// Whether the host's own is what is wanted. An ordinary user's container has it with the host's owner and
/// permissions, which it could not change.
pub(super) fn is_there(wanted: &Device, privilege: Privilege) -> bool {
    let Ok(there) = fs::symlink_metadata(&wanted.path) else {
        return false;
    };
    let kind = there.file_type();
    let is_same = match wanted.typ {
        DeviceType::Character => kind.is_char_device(),
        DeviceType::Block => kind.is_block_device(),
        DeviceType::Fifo => return false,
    };
    let fits = |wanted: Option<u32>, there: u32| wanted.is_none_or(|wanted| wanted == there);
    wanted.path.starts_with(PLACE)
        && is_same
        && there.rdev() == makedev(wanted.major, wanted.minor)
        && (privilege == Privilege::User
            || fits(wanted.mode, there.mode() & 0o7777)
                && fits(wanted.uid, there.uid())
                && fits(wanted.gid, there.gid()))
}

/// Makes `device` and binds it to `place`, a file of the view.
pub(super) fn mount_at(device: &Device, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let options = c"mode=0700,size=4k,nr_inodes=2";
    mount("reaper-device", PLACE, "tmpfs", MountFlags::NOEXEC, options)?;
    let bound = make(device).and_then(|made| {
        let made = open(made, flags, Mode::empty())?;
        Ok(mount_bind(fd_link(&made), fd_link(&place))?)
    });
    let unmounted = unmount(PLACE, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    bound?;
    Ok(unmounted?)
}

fn make(device: &Device) -> io::Result<PathBuf> {
    let path = Path::new(PLACE).join("device");
    let (kind, number) = match device.typ {
        DeviceType::Character => (
            FileType::CharacterDevice,
            makedev(device.major, device.minor),
        ),
        DeviceType::Block => (FileType::BlockDevice, makedev(device.major, device.minor)),
        DeviceType::Fifo => (FileType::Fifo, 0),
    };
    mknodat(CWD, &path, kind, Mode::RUSR, number)?;
    let uid = Uid::from_raw(device.uid.unwrap_or_default());
    let gid = Gid::from_raw(device.gid.unwrap_or_default());
    chown(&path, Some(uid), Some(gid))?;
    chmod(&path, Mode::from_raw_mode(device.mode.unwrap_or(MODE)))?;
    Ok(path)
}
