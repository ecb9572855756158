//! What makes names of a state root's containers unique on the node.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use siphasher::sip::SipHasher13;

/// The state root of root's containers where no other is configured. Names of its containers'
/// cgroups and overlays need no distinction.
pub const DEFAULT_STATE_ROOT: &str = "/run/reaper";

/// Sixteen hexadecimal digits for a path, the same in every process and every version, since they
/// become names on disk and of cgroups that outlive the program. Paths that are equal have the same,
/// however many slashes they have.
pub fn path_hash(path: &Path) -> String {
    let normal: PathBuf = path.components().collect();
    let hash = SipHasher13::new().hash(normal.as_os_str().as_bytes());
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_hash_is_stable() {
        assert_eq!(path_hash(Path::new("/run/other")), "b4c29e9e97e9aaa0");
        assert_eq!(
            path_hash(Path::new("/run//other/")),
            path_hash(Path::new("/run/other"))
        );
        assert_ne!(
            path_hash(Path::new("/run/another")),
            path_hash(Path::new("/run/other"))
        );
    }
}
