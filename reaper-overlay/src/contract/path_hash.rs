//! Short names of paths.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use siphasher::sip::SipHasher13;

/// Sixteen hexadecimal digits for a path, the same in every process and every version, as they
/// become names on disk. Paths that are equal have the same, however many slashes they have.
pub(crate) fn of(path: &Path) -> String {
    let normal: PathBuf = path.components().collect();
    let hash = SipHasher13::new().hash(normal.as_os_str().as_bytes());
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_same_digest_for_ever() {
        assert_eq!(of(Path::new("/run/other")), "b4c29e9e97e9aaa0");
        assert_eq!(of(Path::new("/run//other/")), of(Path::new("/run/other")));
        assert_ne!(of(Path::new("/run/another")), of(Path::new("/run/other")));
    }
}
