//! Where the containers are, and how they are to be run.

use std::path::{Path, PathBuf};

use reaper_spec::{Config, ExecId};
use reaper_state::RootDir;

use crate::{
    args::GlobalArgs,
    error::{Error, Result},
};

/// What configuration, environment and global options say together.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) root: RootDir,
}

impl Settings {
    pub(crate) fn load(global: &GlobalArgs) -> Result<Self> {
        let config = Config::load(global.config.as_deref(), &|name| std::env::var_os(name))?;
        let root = match &global.root {
            Some(root) => absolute("--root", root)?,
            None => config.state_root.clone(),
        };
        let root = RootDir::new(root);
        let root = match &global.namespace {
            None => root,
            Some(name) => {
                // A namespace becomes a folder, so it must be as harmless as an id.
                let name = ExecId::new(name.as_str()).map_err(|error| Error::Option {
                    option: "--namespace",
                    problem: error.to_string(),
                })?;
                root.namespace(name.as_str())
            }
        };
        Ok(Self { config, root })
    }
}

/// `path` as seen from anywhere: engines and monitors have working directories of their own.
pub(crate) fn absolute(option: &'static str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::Option {
        option,
        problem: format!("{}: {error}", path.display()),
    })
}
