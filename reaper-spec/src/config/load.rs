//! Putting a configuration together.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{
    document::Document,
    input::{Input, Wrong},
    keys::{KEYS, suggest},
    policy::POLICY,
    types::Config,
};
use crate::{
    error::{Error, Invalid, Origin},
    policy::PolicyRules,
};

/// The configuration file that is read unless another is named. It need not exist.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/reaper/config.toml";

/// Names the configuration file.
const CONFIG_VARIABLE: &str = "REAPER_CONFIG";

/// What containerd itself writes into the options of a runtime that it doesn't know.
const CONTAINERD_OPTIONS: [&str; 3] = ["TypeUrl", "ConfigPath", "ConfigBody"];

impl Config {
    /// The defaults, then the configuration file, then the environment.
    ///
    /// The file is `file`, else the one that `REAPER_CONFIG` names, else
    /// [`DEFAULT_CONFIG_FILE`], which may be missing; a file that was named may not. `env` looks
    /// up an environment variable; an empty one counts as unset.
    ///
    /// What [`DEFAULT_CONFIG_FILE`] says of [`policy`](Self::policy) holds whatever file is named: who
    /// starts a program chooses its environment and its flags, and the policy is the node admin's. A
    /// named file may narrow it, and say what that file is silent on.
    ///
    /// ```no_run
    /// use reaper_spec::Config;
    /// let config = Config::load(None, &|name| std::env::var_os(name))?;
    /// println!("containers are below {}", config.state_root.display());
    /// # Ok::<(), reaper_spec::Error>(())
    /// ```
    ///
    /// # Errors
    /// A file cannot be read, or a value is wrong; the error names file or environment, key,
    /// and what was expected. A named file says more of
    /// [`PolicyConfig::privileges`](crate::PolicyConfig::privileges) than [`DEFAULT_CONFIG_FILE`], or
    /// that one is not valid TOML.
    pub fn load(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        Self::load_with_base(Self::default(), Path::new(DEFAULT_CONFIG_FILE), file, env)
    }

    /// As [`load`](Self::load), with defaults of the caller's: the settings in `defaults`, and
    /// `default_file` in the place of [`DEFAULT_CONFIG_FILE`]. An ordinary user's programs have
    /// other ones than the node.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_base(
        defaults: Self,
        default_file: &Path,
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let named = named_file(file, &env);

        let mut config = defaults;
        match named {
            Some(path) => {
                config.apply_policy_of(default_file)?;
                config.apply_file(&path)?;
            }
            None => {
                if let Some(document) = Document::read_if_there(default_file)? {
                    config.apply(&document)?;
                }
            }
        }
        for key in KEYS {
            if let Some(variable) = key.env
                && let Some(value) = env(variable)
            {
                let set = (key.set)(&mut config, Input::Text(&value));
                set.map_err(|wrong| invalid(variable, wrong).of(Origin::Environment))?;
            }
        }
        Ok(config)
    }

    /// Applies what `node`, if there is such a file, says of the policy, and nothing else of it: another file
    /// was named in its place.
    fn apply_policy_of(&mut self, node: &Path) -> Result<(), Error> {
        match Document::read_if_there(node)? {
            Some(document) => self.apply(&document.only(POLICY)),
            None => Ok(()),
        }
    }

    /// Applies a configuration file over what is set so far: a further file that containerd's
    /// `ConfigPath` names, for example.
    ///
    /// # Errors
    /// As [`load`](Self::load). Nothing was changed then.
    pub fn apply_file(&mut self, path: &Path) -> Result<(), Error> {
        self.apply(&Document::read(path)?)
    }

    /// Applies the options of a runtime in containerd's configuration: the `ConfigBody` that
    /// containerd makes of them, in TOML, with the keys of the configuration file.
    ///
    /// # Errors
    /// As [`load`](Self::load). Nothing was changed then.
    pub fn apply_options(&mut self, toml: &str) -> Result<(), Error> {
        let mut document = Document::parse(toml, Origin::RuntimeOptions)?;
        document
            .table
            .retain(|key, _| !CONTAINERD_OPTIONS.contains(&key));
        self.apply(&document)
    }

    /// Every setting: its name in the file, and the environment variable that sets it, where there
    /// is one.
    pub fn keys() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
        KEYS.iter().map(|key| (key.name, key.env))
    }

    fn apply(&mut self, document: &Document) -> Result<(), Error> {
        let mut changed = self.clone();
        if document.table.contains_key(POLICY) {
            changed.policy.rules.push(PolicyRules {
                source: document.policy_source(),
                ..PolicyRules::default()
            });
        }
        changed.apply_table(&document.table, "", &document.origin)?;
        let settled = changed.policy.settle();
        settled.map_err(|invalid| invalid.of(document.origin.clone()))?;
        *self = changed;
        Ok(())
    }

    fn apply_table(&mut self, table: &Table, prefix: &str, origin: &Origin) -> Result<(), Error> {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            if let Some(key) = KEYS.iter().find(|key| key.name == name) {
                let set = (key.set)(self, Input::Toml(value));
                set.map_err(|wrong| invalid(&name, wrong).of(origin.clone()))?;
                continue;
            }
            let inside = format!("{name}.");
            let section = KEYS.iter().any(|key| key.name.starts_with(&inside));
            match value {
                Value::Table(table) if section => self.apply_table(table, &inside, origin)?,
                _ if section => {
                    let found = value.type_str();
                    let wrong = Wrong {
                        expected: "a table".into(),
                        found: found.to_owned(),
                    };
                    return Err(invalid(&name, wrong).of(origin.clone()));
                }
                _ => {
                    let suggestion =
                        suggest(&name, KEYS.iter().map(|key| key.name)).or_else(|| {
                            suggest(&name, ["overlay", "log", "annotations", POLICY].into_iter())
                        });
                    return Err(Error::UnknownKey {
                        origin: origin.clone(),
                        key: name,
                        suggestion,
                    });
                }
            }
        }
        Ok(())
    }
}

/// The file that is read instead of the default one.
pub(super) fn named_file(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let by_variable = || env(CONFIG_VARIABLE).filter(|name| !name.is_empty());
    file.map(Path::to_owned)
        .or_else(|| by_variable().map(PathBuf::from))
}

fn invalid(at: &str, Wrong { expected, found }: Wrong) -> Invalid {
    Invalid {
        at: at.to_owned(),
        expected,
        found,
    }
}
