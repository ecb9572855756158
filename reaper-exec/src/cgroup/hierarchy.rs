//! Where the cgroup v2 hierarchy is mounted.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access, statfs};

/// Where hosts have it: pure v2, and beside v1 (hybrid).
const USUAL_PLACES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// `CGROUP2_SUPER_MAGIC` of statfs(2).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// A mounted cgroup v2 hierarchy that can be written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    root: PathBuf,
}

impl Hierarchy {
    /// Finds the hierarchy of this host: `None` where there is none, as on hosts with v1 alone,
    /// and where it can't be written to.
    ///
    /// # Errors
    /// `/proc/self/mountinfo` could not be read.
    pub fn find() -> io::Result<Option<Self>> {
        // Mountinfo can have thousands of lines, and nearly every host has it in these places.
        if let Some(found) = USUAL_PLACES
            .iter()
            .find_map(|place| Self::at(Path::new(place)))
        {
            return Ok(Some(found));
        }
        let mounts = fs::read("/proc/self/mountinfo")?;
        Ok(cgroup2_mounts(&mounts)
            .iter()
            .find_map(|place| Self::at(place)))
    }

    /// The hierarchy at `root`: `None` if nothing of cgroup v2 is mounted there, or it can't be
    /// written to.
    pub fn at(root: &Path) -> Option<Self> {
        let filesystem = statfs(root).ok()?.f_type;
        // The type of the field differs between architectures.
        if u64::try_from(filesystem).ok()? != CGROUP2_MAGIC {
            return None;
        }
        access(root, Access::WRITE_OK).ok()?;
        Some(Self {
            root: root.to_owned(),
        })
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// The mount points of whole cgroup v2 hierarchies, in the order of the lines.
pub(super) fn cgroup2_mounts(mountinfo: &[u8]) -> Vec<PathBuf> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(cgroup2_mount)
        .collect()
}

fn cgroup2_mount(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (root, mount_point) = (fields.nth(3)?, fields.next()?);
    // Any number of optional fields follows, then a separator and the type.
    let filesystem = fields.skip_while(|&field| field != b"-").nth(1)?;
    // A part of the hierarchy, bound into some container's root, is not ours.
    (filesystem == b"cgroup2" && root == b"/")
        .then(|| PathBuf::from(OsString::from_vec(unescape(mount_point))))
}

/// Undoes what the kernel does to spaces, tabs, newlines and backslashes: `\` and three octal
/// digits.
pub(super) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        if first == b'\\'
            && let Some(digits) = after.first_chunk::<3>()
            && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        {
            let value = digits
                .iter()
                .fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
            if let Ok(byte) = u8::try_from(value) {
                plain.push(byte);
                rest = &after[3..];
                continue;
            }
        }
        plain.push(first);
        rest = after;
    }
    plain
}
