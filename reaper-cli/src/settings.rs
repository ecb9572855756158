//! Where the containers are, and how they are to be run.

use std::{
    env,
    path::{Path, PathBuf},
};

use reaper_spec::{Config, ExecId};
use reaper_state::StateRoot;

use crate::{
    args::GlobalArgs,
    error::{Error, Result},
};

/// What configuration, environment and global options say together.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: Config,
    pub(crate) root: StateRoot,
}

impl Settings {
    pub(crate) fn load(global: &GlobalArgs) -> Result<Self> {
        let config = if nix::unistd::geteuid().is_root() {
            Config::load(global.config.as_deref(), &|name| env::var_os(name))?
        } else {
            of_user(global.config.as_deref())?
        };
        let root = match &global.root {
            Some(root) => absolute("--root", root)?,
            None => config.state_root.clone(),
        };
        let root = StateRoot::new(root);
        let root = match &global.namespace {
            None => root,
            Some(name) => {
                // A namespace becomes a folder, so it must be as harmless as an id.
                let name = ExecId::new(name.as_str()).map_err(|error| Error::Option {
                    option: "--namespace",
                    problem: error.to_string(),
                })?;
                root.containerd_namespace(name.as_str())
            }
        };
        Ok(Self { config, root })
    }
}

/// An ordinary user's configuration: state and overlays are below the user's own directory, and the
/// node's file, which says where root's are, is not read.
fn of_user(file: Option<&Path>) -> Result<Config> {
    let directory = reaper_overlay::user_directory()?;
    let mut defaults = Config::default();
    defaults.overlay.base = directory.join("overlay");
    defaults.state_root = directory;
    let named = |name| {
        let path = env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let settings = named("XDG_CONFIG_HOME")
        .or_else(|| Some(named("HOME")?.join(".config")))
        // Who has no home has no other place of its own.
        .unwrap_or_else(|| defaults.state_root.clone());
    let default_file = settings.join("reaper/config.toml");
    let env = |name: &str| env::var_os(name);
    Ok(Config::load_with_base(defaults, &default_file, file, &env)?)
}

/// `path` as seen from anywhere: engines and monitors have working directories of their own.
pub(crate) fn absolute(option: &'static str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::Option {
        option,
        problem: format!("{}: {error}", path.display()),
    })
}
