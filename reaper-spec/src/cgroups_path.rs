//! Where a container's cgroup goes.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

/// The slice that systemd puts system services into; the meaning of an empty slice.
const DEFAULT_SLICE: &str = "system.slice";
const SLICE: &str = ".slice";

/// A `linux.cgroupsPath`, resolved to a path relative to the root of a cgroup hierarchy.
///
/// Both of the forms in use are read: cgroupfs (`/kubepods/besteffort/podX/ID`) and systemd's
/// (`SLICE:PREFIX:NAME`, which becomes the slice's folders and `PREFIX-NAME.scope` in it). A text
/// is systemd's if it has two colons and no slash before the first.
///
/// It has at least one component and no `..`. Serialised it is the cgroupfs form.
///
/// ```
/// use reaper_spec::CgroupsPath;
/// let path: CgroupsPath = "kubepods-besteffort.slice:cri-containerd:abc".parse()?;
/// assert_eq!(
///     path.relative().to_str(),
///     Some("kubepods.slice/kubepods-besteffort.slice/cri-containerd-abc.scope")
/// );
/// # Ok::<(), reaper_spec::CgroupsPathError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupsPath(String);

/// Why a text is no cgroup's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupsPathError {
    /// It names no cgroup, or the root, which is not a container's to have.
    #[error("it names no cgroup below the root")]
    Root,
    /// It has a component `..`.
    #[error("it leaves its place by \"..\"")]
    Parent,
    /// It has a control character, which the kernel refuses in a cgroup's name.
    #[error("it has a control character")]
    Control,
    /// A component is longer than a file name may be.
    #[error("a component is longer than 255 bytes")]
    TooLong,
    /// systemd's form with a slice that systemd would refuse.
    #[error("{0:?} is no slice of systemd: one is like kubepods-besteffort.slice")]
    Slice(String),
    /// systemd's form without a name, or with a slash in it.
    #[error("{0:?} is no name of a systemd unit")]
    Unit(String),
}

impl CgroupsPath {
    /// Reads either form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, CgroupsPathError> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [slice, prefix, name] if !slice.contains('/') => systemd(slice, prefix, name),
            _ => cgroupfs(text),
        }
    }

    /// The path below a hierarchy's root: relative, without `..`.
    pub fn relative(&self) -> &Path {
        Path::new(&self.0)
    }
}

fn cgroupfs(text: &str) -> Result<CgroupsPath, CgroupsPathError> {
    let components: Vec<&str> = text
        .split('/')
        .filter(|c| !matches!(*c, "" | "."))
        .collect();
    if components.is_empty() {
        return Err(CgroupsPathError::Root);
    }
    if components.contains(&"..") {
        return Err(CgroupsPathError::Parent);
    }
    if text.contains(|c: char| c.is_ascii_control()) {
        return Err(CgroupsPathError::Control);
    }
    if components.iter().any(|component| component.len() > 255) {
        return Err(CgroupsPathError::TooLong);
    }
    Ok(CgroupsPath(components.join("/")))
}

fn systemd(slice: &str, prefix: &str, name: &str) -> Result<CgroupsPath, CgroupsPathError> {
    if name.is_empty() || name.contains('/') || prefix.contains('/') {
        return Err(CgroupsPathError::Unit(format!("{prefix}:{name}")));
    }
    // As with runc, a name that is a slice is the unit itself.
    let unit = match prefix {
        _ if name.ends_with(SLICE) => name.to_owned(),
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    };
    cgroupfs(&format!("{}/{unit}", slice_folders(slice)?))
}

/// systemd.slice(5): `a-b.slice` is in `a.slice`, and `-.slice` is the root.
fn slice_folders(slice: &str) -> Result<String, CgroupsPathError> {
    let slice = if slice.is_empty() {
        DEFAULT_SLICE
    } else {
        slice
    };
    let stem = match slice.strip_suffix(SLICE) {
        Some("-") => return Ok(String::new()),
        Some(stem) if !stem.split('-').any(str::is_empty) => stem,
        _ => return Err(CgroupsPathError::Slice(slice.to_owned())),
    };
    let ends = stem
        .match_indices('-')
        .map(|(end, _)| end)
        .chain([stem.len()]);
    let folders: Vec<String> = ends.map(|end| format!("{}{SLICE}", &stem[..end])).collect();
    Ok(folders.join("/"))
}

impl FromStr for CgroupsPath {
    type Err = CgroupsPathError;

    fn from_str(text: &str) -> Result<Self, CgroupsPathError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for CgroupsPath {
    type Error = CgroupsPathError;

    fn try_from(text: String) -> Result<Self, CgroupsPathError> {
        Self::parse(&text)
    }
}

impl From<CgroupsPath> for String {
    fn from(path: CgroupsPath) -> Self {
        path.to_string()
    }
}

/// The cgroupfs form. Its leading slash tells it from systemd's whatever the names are.
impl fmt::Display for CgroupsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

#[cfg(test)]
mod tests;
