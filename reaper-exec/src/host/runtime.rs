//! Where the program of an OCI runtime is.

use std::{
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::executor::{Error, Result};

/// Where a runtime is looked for in a program without a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program of `runtime`. It is looked for at each creation: it may be installed meanwhile.
pub(super) fn program(runtime: &Path) -> Result<PathBuf> {
    find(runtime).ok_or_else(|| Error::Setup {
        step: format!("find the OCI runtime {}", runtime.display()),
        message: "there is no such program".to_owned(),
        errno: Some(libc::ENOENT),
    })
}

/// Where the program `runtime`, a path or a name in `PATH`, is now.
pub(crate) fn find(runtime: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if runtime.components().count() > 1 || runtime.is_absolute() {
        let path = std::path::absolute(runtime).ok()?;
        return Some(path).filter(is_program);
    }
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    env::split_paths(&path)
        .map(|folder| folder.join(runtime))
        .find(is_program)
}
