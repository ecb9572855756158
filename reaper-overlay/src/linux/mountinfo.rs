//! Reading `/proc/PID/mountinfo`.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use crate::contract::{Context, Error};

#[cfg(test)]
mod tests;

/// One mount of a mount namespace (proc(5), `mountinfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountInfo {
    /// The mount's id.
    pub id: u32,
    /// The id of the mount it is mounted on.
    pub parent: u32,
    /// The device number as written, `major:minor`.
    pub device: String,
    /// Which directory of the filesystem is mounted.
    pub root: PathBuf,
    /// Where, relative to the process's root.
    pub mount_point: PathBuf,
    /// The options of this mount, such as `ro` and `nosuid`.
    pub options: Vec<String>,
    /// The optional fields, such as `shared:7`.
    pub propagation: Vec<String>,
    /// The filesystem's type.
    pub fs_type: String,
    /// The filesystem's source.
    pub source: OsString,
    /// The options of the filesystem.
    pub super_options: OsString,
}

/// Reads the mounts of the calling thread.
///
/// # Errors
/// `/proc/thread-self/mountinfo` cannot be read.
pub fn read() -> Result<Vec<MountInfo>, Error> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read(path).context("read", path)?;
    Ok(parse(&text))
}

/// Parses the text of a mountinfo file. Lines that are none are left out: the kernel writes no
/// such lines, and one of a future kernel must not stop everything.
pub fn parse(text: &[u8]) -> Vec<MountInfo> {
    text.split(|&byte| byte == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&byte| byte == b' ');
    let mut next = || fields.next();
    let id = number(next()?)?;
    let parent = number(next()?)?;
    let device = text(next()?);
    let root = unescape(next()?).into();
    let mount_point = unescape(next()?).into();
    let options = text(next()?).split(',').map(str::to_owned).collect();
    let mut propagation = Vec::new();
    loop {
        match next()? {
            b"-" => break,
            field => propagation.push(text(field)),
        }
    }
    let fs_type = text(unescape(next()?).as_bytes());
    let source = unescape(next()?);
    let super_options = unescape(next().unwrap_or_default());
    Some(MountInfo {
        id,
        parent,
        device,
        root,
        mount_point,
        options,
        propagation,
        fs_type,
        source,
        super_options,
    })
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// Undoes the octal escapes of mountinfo (`\040` is a space). A backslash without three octal
/// digits stands for itself.
pub fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match tail.get(..3).and_then(octal) {
            Some(value) if byte == b'\\' => {
                plain.push(value);
                rest = &tail[3..];
            }
            _ => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
        _ => None,
    })
}

/// Writes any name as printable ASCII without spaces, so that [`unescape`] gives it back.
pub fn escape(name: &OsStr) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(name.len());
    for &byte in name.as_bytes() {
        if byte.is_ascii_graphic() && byte != b'\\' {
            escaped.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\{byte:03o}");
        }
    }
    escaped
}

/// The mounts that a path lookup can reach, parents before children. A mount that another one
/// covers, at its own mount point or at one above, is not among them.
pub fn visible(mounts: &[MountInfo]) -> Vec<&MountInfo> {
    let ids: HashSet<u32> = mounts.iter().map(|mount| mount.id).collect();
    let root = mounts
        .iter()
        .find(|mount| mount.mount_point == Path::new("/") && !ids.contains(&mount.parent));
    let root = root.or_else(|| mounts.iter().find(|mount| mount.parent == mount.id));
    root.map_or_else(Vec::new, |root| visible_on(mounts, root))
}

/// The same of `root`, one of `mounts`, and what lies below.
pub(crate) fn visible_on<'a>(mounts: &'a [MountInfo], root: &'a MountInfo) -> Vec<&'a MountInfo> {
    let mut children: HashMap<u32, Vec<&MountInfo>> = HashMap::new();
    for mount in mounts {
        if mount.parent != mount.id {
            children.entry(mount.parent).or_default().push(mount);
        }
    }
    let root = top(root, &children);
    let mut found: Vec<&MountInfo> = vec![root];
    let mut known: HashSet<u32> = HashSet::from([root.id]);
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let on_it = children
            .get(&parent.id)
            .map(Vec::as_slice)
            .unwrap_or_default();
        // Siblings at one mount point: the later one is the one that is seen.
        let points: HashMap<&Path, &MountInfo> = on_it
            .iter()
            .filter(|child| child.mount_point != parent.mount_point)
            .map(|child| (child.mount_point.as_path(), *child))
            .collect();
        for child in on_it {
            let point = child.mount_point.as_path();
            let is_last = points
                .get(point)
                .is_some_and(|last| std::ptr::eq(*last, *child));
            // A sibling further up covers the place.
            if !is_last
                || point
                    .ancestors()
                    .skip(1)
                    .any(|above| points.contains_key(above))
            {
                continue;
            }
            let seen = top(child, &children);
            if known.insert(seen.id) {
                found.push(seen);
            }
        }
    }
    found
}

/// What is mounted on a mount at its own root covers it.
fn top<'a>(mount: &'a MountInfo, children: &HashMap<u32, Vec<&'a MountInfo>>) -> &'a MountInfo {
    let mut top = mount;
    // No more steps than mounts: a damaged text could go round in circles.
    for _ in 0..=children.len() {
        let on_it = children.get(&top.id).map(Vec::as_slice).unwrap_or_default();
        match on_it
            .iter()
            .rfind(|child| child.mount_point == top.mount_point)
        {
            Some(cover) => top = cover,
            None => break,
        }
    }
    top
}
