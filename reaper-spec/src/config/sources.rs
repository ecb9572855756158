//! Which settings were made, and where.

use std::{ffi::OsString, path::Path};

use toml::{Table, Value};

use super::{document::Document, keys::KEYS, load::named_file, policy::POLICY, types::Config};
use crate::error::{Error, Origin};

/// A setting that is not left at its default.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingSource {
    /// Its name in files.
    pub key: &'static str,
    /// What was written: of a file as JSON writes it, of an environment variable its text.
    pub value: String,
    /// Where: a file, or the environment.
    pub origin: Origin,
    /// The line in the file, counted from 1.
    pub line: Option<usize>,
    /// The environment variable.
    pub variable: Option<&'static str>,
}

impl Config {
    /// The settings that [`load_with_base`](Self::load_with_base) with these arguments takes from a file or
    /// the environment, in the order of [`keys`](Self::keys). Of a rule of the policy that two files
    /// have, both are there; of any other setting the one that counts.
    ///
    /// # Errors
    /// A file cannot be read, or is not valid TOML.
    pub fn sources(
        default_file: &Path,
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<SettingSource>, Error> {
        let documents = match named_file(file, env) {
            Some(path) => {
                let node =
                    Document::read_if_there(default_file)?.map(|document| document.only(POLICY));
                [node, Some(Document::read(&path)?)]
            }
            None => [Document::read_if_there(default_file)?, None],
        };
        let mut found = Vec::new();
        for key in KEYS {
            let variable = key.env.and_then(|name| Some((name, env(name)?)));
            if let Some((name, value)) = variable.filter(|(_, value)| !value.is_empty()) {
                found.push(SettingSource {
                    key: key.name,
                    value: value.to_string_lossy().into_owned(),
                    origin: Origin::Environment,
                    line: None,
                    variable: Some(name),
                });
                continue;
            }
            for document in documents.iter().flatten() {
                found.extend(
                    look_up(&document.table, key.name).map(|value| SettingSource {
                        key: key.name,
                        value: as_json(value),
                        origin: document.origin.clone(),
                        line: document.lines.get(key.name).copied(),
                        variable: None,
                    }),
                );
            }
        }
        Ok(found)
    }

    /// The line of `file`, counted from 1, in which a key stands, such as one that an error names.
    pub fn line_of(file: &Path, key: &str) -> Option<usize> {
        Document::read(file).ok()?.lines.get(key).copied()
    }
}

/// Texts, numbers and lists are written alike in JSON and in TOML.
fn as_json(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| value.type_str().to_owned())
}

fn look_up<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    let mut parts = name.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}
