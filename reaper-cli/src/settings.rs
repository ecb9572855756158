//! Where the containers are, and how they are to be run.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use reaper_exec::OciExecutor;
use reaper_spec::{Config, DEFAULT_CONFIG_FILE, ExecId};
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
        let mut config = Defaults::of_caller()?.load(global.config.as_deref())?;
        // One that is meant for the shim.
        config
            .runtime_path
            .take_if(|runtime| is_this_program(runtime));
        let root = match &global.root {
            Some(root) => absolute("--root", root)?,
            None => config.state_root.clone(),
        };
        let root = StateRoot::new(lasting("the state root", root)?);
        config.overlay.base = lasting("the overlay base", config.overlay.base)?;
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

/// Whether a configuration names this program as its runtime: it would drive itself without end.
fn is_this_program(runtime: &Path) -> bool {
    let Some(runtime) = OciExecutor::find(runtime) else {
        return false;
    };
    match (fs::metadata(runtime), fs::metadata("/proc/self/exe")) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// What a configuration begins with, and the file that is read unless another is named.
#[derive(Debug)]
pub(crate) struct Defaults {
    config: Config,
    pub(crate) file: PathBuf,
}

impl Defaults {
    /// The node's for root. An ordinary user's state and overlays are below the user's own directory, and
    /// the node's file, which says where root's are, is not read.
    pub(crate) fn of_caller() -> Result<Self> {
        if nix::unistd::geteuid().is_root() {
            return Ok(Self {
                config: Config::default(),
                file: DEFAULT_CONFIG_FILE.into(),
            });
        }
        let directory = reaper_overlay::user_directory()?;
        let mut config = Config::default();
        config.overlay.base = directory.join("overlay");
        config.state_root = directory;
        let named = |name| {
            let path = env::var_os(name).map(PathBuf::from);
            path.filter(|path| path.is_absolute())
        };
        let settings = named("XDG_CONFIG_HOME")
            .or_else(|| Some(named("HOME")?.join(".config")))
            // Who has no home has no other place of its own.
            .unwrap_or_else(|| config.state_root.clone());
        Ok(Self {
            config,
            file: settings.join("reaper/config.toml"),
        })
    }

    /// The configuration with `file`, if one is named, and the environment.
    pub(crate) fn load(
        self,
        file: Option<&Path>,
    ) -> std::result::Result<Config, reaper_spec::Error> {
        let env = |name: &str| env::var_os(name);
        Config::load_with_base(self.config, &self.file, file, &env)
    }
}

/// `path` as monitors and later calls can use it: they have other descriptors than this call, and
/// keep paths in JSON.
pub(crate) fn lasting(option: &'static str, path: PathBuf) -> Result<PathBuf> {
    let refused = |problem: String| Error::Option { option, problem };
    // `/dev/fd/8` and the like lead through /proc.
    let path = if path.starts_with("/proc") || path.starts_with("/dev/fd") {
        resolved(&path).map_err(|error| refused(format!("{}: {error}", path.display())))?
    } else {
        path
    };
    utf8(option, &path)?;
    Ok(path)
}

/// Refuses a path that cannot be kept.
pub(crate) fn utf8(option: &'static str, path: &Path) -> Result<()> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(Error::Option {
            option,
            problem: format!(
                "{path:?} is not UTF-8, in which paths are kept: give it another name, or a \
                 symbolic link"
            ),
        }),
    }
}

/// `path` without symbolic links; what is missing at its end stays as it is.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match (path.parent(), path.file_name()) {
                (Some(parent), Some(name)) if !is_descriptor(path) => {
                    Ok(resolved(parent)?.join(name))
                }
                _ => Err(error),
            }
        }
        resolved => resolved,
    }
}

/// Whether a path names a descriptor, in whose place nothing can be made.
fn is_descriptor(path: &Path) -> bool {
    path.parent().is_some_and(|parent| parent.ends_with("fd"))
}

/// `path` as seen from anywhere: engines and monitors have working directories of their own.
pub(crate) fn absolute(option: &'static str, path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| Error::Option {
        option,
        problem: format!("{}: {error}", path.display()),
    })
}
