//! Which file gets the handlers, by what is found of a containerd's configuration.
//!
//! A file that others make anew at each start is never the one. A drop-in is taken where containerd merges
//! it: 1.x replaces a plugin's whole section by that of an imported file, so there it would take away what the
//! main file says of the CRI.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Item};

use crate::commands::containerd::PLUGINS;

/// The link to the revision of MicroK8s' snap that is in use.
pub(super) const SNAP_CURRENT: &str = "/var/snap/microk8s/current";
/// The file that is added where a directory of files is read.
const DROP_IN: &str = "reaper-v2.toml";
/// What k0s writes into a configuration that it makes itself.
const MADE_BY_K0S: &str = "# k0s_managed=true";

/// Where distributions have the configuration, if no containerd runs that could tell.
pub(super) const KNOWN: [&str; 5] = [
    "/etc/containerd/config.toml",
    "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
    "/var/lib/rancher/rke2/agent/etc/containerd/config.toml",
    "/var/snap/microk8s/current/args/containerd.toml",
    "/etc/k0s/containerd.toml",
];

/// What is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Form {
    /// The configuration itself.
    Main,
    /// A file of its own, which the configuration imports.
    DropIn,
    /// What the configuration is made from at each start, in a language around TOML.
    Template,
    /// A file that is Reaper's as a whole.
    Own,
}

/// The file that gets the handlers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) form: Form,
    /// The version of the configuration's format, which an import has to share.
    pub(super) version: i64,
    /// Whether a first runtime that is configured takes away runc, which is there by default, as in 1.x.
    pub(super) replaces_runc: bool,
}

/// What is known of a containerd's configuration.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// The file that containerd is started with.
    pub(super) config: &'a Path,
    /// What is in it, if it is there.
    pub(super) text: Option<&'a str>,
    /// containerd's major version, if it could be asked.
    pub(super) major: Option<u32>,
    /// What containerd says that it imports, if it could be asked.
    pub(super) imports: &'a [String],
}

/// The file that gets the handlers, or why there is none.
pub(super) fn target(found: &Found<'_>) -> Result<Target, String> {
    let shown = found.config.display();
    let dir = found.config.parent().unwrap_or(Path::new("/"));
    let document = parse(found.text.unwrap_or_default())
        .map_err(|error| format!("{shown} is no TOML: {error}"))?;
    let all = strings(document.get("disabled_plugins"));
    if let Some(name) = all.iter().find(|name| is_cri(name)) {
        return Err(format!(
            "{shown} disables the CRI, so that no Kubernetes can use this containerd: take {name} out of \
             disabled_plugins"
        ));
    }
    let version = version(&document, found)?;
    let imports = strings(document.get("imports"));
    let merges = found.major.map_or(version >= 3, |major| major >= 2);
    let at = |path, form| Target {
        path,
        form,
        version,
        replaces_runc: !merges,
    };
    if found.config.ends_with("agent/etc/containerd/config.toml") {
        if found.text.is_none() {
            return Err(format!("{shown} is made by the first start: start it once"));
        }
        let drop_in = if merges { drop_in(&imports, dir) } else { None };
        let template = match version {
            ..3 => "config.toml.tmpl",
            _ => "config-v3.toml.tmpl",
        };
        return Ok(match drop_in {
            Some(path) => at(path, Form::DropIn),
            None => at(dir.join(template), Form::Template),
        });
    }
    if found.config.starts_with("/var/snap/microk8s") {
        return Ok(at(dir.join("containerd-template.toml"), Form::Template));
    }
    if found.text.is_some_and(|text| text.contains(MADE_BY_K0S)) {
        // k0s merges what is there itself, for containerds of every version.
        return Ok(at(dir.join("containerd.d").join(DROP_IN), Form::DropIn));
    }
    let drop_in = if merges {
        drop_in(&imports, dir).or_else(|| drop_in(found.imports, dir))
    } else {
        None
    };
    Ok(match drop_in {
        Some(path) => at(path, Form::DropIn),
        None => at(found.config.to_owned(), Form::Main),
    })
}

/// Whether it is made by a distribution, which has no use for an import that is added to it.
pub(super) fn is_generated(config: &Path, text: Option<&str>) -> bool {
    config.ends_with("agent/etc/containerd/config.toml")
        || config.starts_with("/var/snap/microk8s")
        || text.is_some_and(|text| text.contains(MADE_BY_K0S))
}

pub(super) fn parse(text: &str) -> Result<DocumentMut, toml_edit::TomlError> {
    text.parse()
}

fn version(document: &DocumentMut, found: &Found<'_>) -> Result<i64, String> {
    match document.get("version").and_then(Item::as_integer) {
        Some(version) if version >= 2 => Ok(version),
        None if document.is_empty() => Ok(match found.major {
            Some(2..) => 3,
            // Which every containerd reads.
            _ => 2,
        }),
        _ => Err(format!(
            "{} is of version 1, which newer containerds ignore: convert it by `containerd config migrate`",
            found.config.display()
        )),
    }
}

/// The drop-in in the first directory whose files are all imported.
fn drop_in(imports: &[String], dir: &Path) -> Option<PathBuf> {
    let folder = imports
        .iter()
        .find_map(|import| import.strip_suffix("/*.toml"))?;
    Some(dir.join(folder).join(DROP_IN))
}

fn strings(item: Option<&Item>) -> Vec<String> {
    let array = item.and_then(Item::as_array);
    let texts = array.into_iter().flatten().filter_map(|item| item.as_str());
    texts.map(str::to_owned).collect()
}

fn is_cri(plugin: &str) -> bool {
    plugin == "cri" || PLUGINS.contains(&plugin)
}

#[cfg(test)]
mod tests;
