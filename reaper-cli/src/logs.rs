//! Where the output of detached commands is kept.

use std::{
    env,
    fs::{DirBuilder, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use reaper_exec::{
    ContainerConfig,
    io::{StdioRequest, StreamTarget, Streams},
};
use reaper_spec::{Config, ContainerId};
use reaper_state::Record;

use crate::{
    container,
    error::{Error, Result},
};

/// Where logs are unless the configuration says otherwise: not in the state root, whose
/// filesystem is small and in memory.
const DEFAULT_FOLDER: &str = "/var/log/reaper";

/// Where logs are, by the configuration.
pub(crate) fn folder(config: &Config) -> PathBuf {
    match &config.log.output {
        Some(folder) => folder.clone(),
        None => default_folder(nix::unistd::geteuid().is_root(), &|name| env::var_os(name)),
    }
}

/// A log that was made for a container that is being made. Dropping it removes it again.
#[derive(Debug)]
pub(crate) struct NewLog(Option<PathBuf>);

impl NewLog {
    /// Makes an empty log, for its owner's eyes alone.
    pub(crate) fn make(config: &Config, id: &ContainerId) -> Result<Self> {
        let folder = folder(config);
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&folder)
            .map_err(Error::io(format!("make the folder {}", folder.display())))?;
        // Another root may have a container of the same name.
        let random = RandomState::new().hash_one(id);
        let path = folder.join(format!("{id}-{random:016x}.log"));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io(format!("make the log {}", path.display())))?;
        Ok(Self(Some(path)))
    }

    /// Has the outputs of `new` go there, and notes it for later calls. Returns its streams.
    pub(crate) fn apply(&self, new: &mut ContainerConfig) -> Result<StdioRequest> {
        let path = self.0.as_deref().unwrap_or(Path::new(""));
        let text = path.to_str().ok_or_else(|| Error::Option {
            option: "log.output",
            problem: format!("{} is not UTF-8", path.display()),
        })?;
        container::set_log(new, text);
        let target = || StreamTarget::Uri(text.to_owned());
        Ok(StdioRequest::new(
            Streams::new().with_stdout(target()).with_stderr(target()),
        ))
    }

    /// It is the container's now, and goes with it.
    pub(crate) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for NewLog {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            remove_file(path);
        }
    }
}

/// Removes the log of a container that was deleted, if it had one.
pub(crate) fn remove(record: &Record) {
    if let Some(path) = container::log_of(record) {
        remove_file(path);
    }
}

fn remove_file(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("remove the log {}: {error}", path.display());
        }
        _ => {}
    }
}

fn default_folder(root: bool, env: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> PathBuf {
    let named = |name: &str| {
        env(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if root {
        return DEFAULT_FOLDER.into();
    }
    named("XDG_STATE_HOME")
        .or_else(|| Some(named("HOME")?.join(".local/state")))
        .map_or_else(|| DEFAULT_FOLDER.into(), |state| state.join("reaper/log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_logs_at_home() {
        let with = |root, variables: &[(&str, &str)]| {
            let env = |name: &str| {
                let mut found = variables.iter().filter(|(known, _)| *known == name);
                found.next().map(|(_, value)| value.into())
            };
            default_folder(root, &env)
        };
        let home = ("HOME", "/home/u");
        assert_eq!(with(true, &[home]), Path::new("/var/log/reaper"));
        let state = Path::new("/home/u/.local/state/reaper/log");
        assert_eq!(with(false, &[home]), state);
        assert_eq!(with(false, &[home, ("XDG_STATE_HOME", "x")]), state);
        let xdg = ("XDG_STATE_HOME", "/s");
        assert_eq!(with(false, &[home, xdg]), Path::new("/s/reaper/log"));
    }
}
