//! Projects: numbers of files, and what all files of one number may take together (quotactl(2)).
//!
//! They are known by the descriptor of any file of the filesystem. Before Linux 5.14 quotactl(2) wants the path
//! of its block device.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use nix::libc;

use super::syscall::{QuotaData, fs_xattr, quotactl, set_fs_xattr};
use crate::contract::{Context, Error};

/// New files in the directory have its project, and none of another one can be moved or linked into it
/// (`FS_XFLAG_PROJINHERIT`).
const INHERITED: u32 = 0x200;

/// `PRJQUOTA`, the kind of quota.
const OF_PROJECTS: u32 = 2;

const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;
/// `Q_XGETQSTAT`, which ext4 answers as well.
const GET_STATE: u32 = 0x5805;

/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced, and not just their use counted.
const IS_ENFORCED: u64 = 1 << 5;

/// `QIF_BLIMITS | QIF_ILIMITS`.
const LIMITS: u64 = 1 | 4;

/// In what a limit of space is counted (`QIF_DQBLKSIZE`).
const UNIT: u64 = 1024;

/// The project of a directory: its number, 0 where it is in none or the filesystem knows none.
pub(crate) fn project(dir: &File) -> io::Result<u32> {
    match fs_xattr(dir.as_fd()) {
        Ok(found) => Ok(found.project),
        Err(error) if is_unknown(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether the directory at `path` gives what is made in it a project.
pub(crate) fn hands_on(path: &Path) -> Result<bool, Error> {
    let dir = File::open(path).context("open", path)?;
    match fs_xattr(dir.as_fd()) {
        Ok(found) => Ok(found.flags & INHERITED != 0),
        Err(error) if is_unknown(&error) => Ok(false),
        Err(error) => Err(error).context("look for the project of", path),
    }
}

/// Gives a directory a project, which new files in it have as well if it is `inherited`.
pub(crate) fn set_project(dir: &File, project: u32, inherited: bool) -> io::Result<()> {
    let mut attributes = fs_xattr(dir.as_fd())?;
    attributes.project = project;
    match inherited {
        true => attributes.flags |= INHERITED,
        false => attributes.flags &= !INHERITED,
    }
    set_fs_xattr(dir.as_fd(), &attributes)
}

/// The quota of a project.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quota {
    /// The most bytes that its files may take; `None` if that is not limited.
    pub(crate) limit: Option<u64>,
    /// The bytes that they take.
    pub(crate) bytes: u64,
    /// How many files there are.
    pub(crate) files: u64,
}

/// The quota of `project` on the filesystem of `file`.
///
/// # Errors
/// Those of quotactl(2); `ESRCH` or `ENOSYS` where no quotas of projects are kept.
pub(crate) fn quota(file: &File, project: u32) -> io::Result<Quota> {
    let mut data = QuotaData::default();
    match call(file, GET_QUOTA, project, &mut data) {
        // XFS knows none of a project that never had a file.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Quota::default()),
        asked => asked?,
    }
    // `struct if_dqblk`
    let [hard, _soft, bytes, _files_hard, _files_soft, files, ..] = data;
    Ok(Quota {
        limit: (hard > 0).then(|| hard * UNIT),
        bytes,
        files,
    })
}

/// Limits what the files of `project` may take, and how many there may be; without limits where both are 0.
///
/// # Errors
/// Those of quotactl(2).
pub(crate) fn set_quota(file: &File, project: u32, bytes: u64, files: u64) -> io::Result<()> {
    let mut data = QuotaData::default();
    // `struct if_dqblk`; a soft limit of 0 is none.
    data[0] = bytes.div_ceil(UNIT);
    data[3] = files;
    // The field has 32 bits, and padding behind it.
    data[8] = u64::from_ne_bytes(first_half(LIMITS as u32));
    call(file, SET_QUOTA, project, &mut data)
}

/// Whether quotas of projects are enforced on the filesystem of `path`.
pub(crate) fn is_enforced(path: &Path) -> Result<bool, Error> {
    let file = File::open(path).context("open", path)?;
    let mut data = QuotaData::default();
    if call(&file, GET_STATE, 0, &mut data).is_err() {
        // Which error it is depends on the filesystem; none is about the answer.
        return Ok(false);
    }
    // `struct fs_quota_stat` begins with a byte, its padding, and 16 bits of flags.
    let [_, _, low, high, ..] = data[0].to_ne_bytes();
    Ok(u64::from(u16::from_ne_bytes([low, high])) & IS_ENFORCED != 0)
}

fn first_half(number: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_ne_bytes());
    bytes
}

fn call(file: &File, command: u32, project: u32, data: &mut QuotaData) -> io::Result<()> {
    // `QCMD` of `linux/quota.h`
    let command = (command << 8) | OF_PROJECTS;
    match quotactl(file.as_fd(), None, command, project, data) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let device = device_of(file)?;
            quotactl(file.as_fd(), Some(&device), command, project, data)
        }
        called => called,
    }
}

/// The block device of the filesystem of `file`, as the kernel and udev(7) call it.
fn device_of(file: &File) -> io::Result<CString> {
    let number = file.metadata()?.dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let about = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"))?;
    let name = about.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let device = format!("/dev/{}", name.ok_or(io::ErrorKind::NotFound)?);
    if fs::metadata(&device)?.rdev() != number {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(CString::new(device)?)
}

/// Whether a filesystem says that its files have no projects.
fn is_unknown(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)
    )
}
