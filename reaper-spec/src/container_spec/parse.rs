//! Reading OCI's `config.json`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{ContainerSpec, Mount};
use crate::{
    CgroupsPath,
    error::{Error, Invalid, Origin},
    json::{self, Node},
    process, seccomp,
};

type Result<T> = std::result::Result<T, Invalid>;

impl ContainerSpec {
    /// Reads `json` as the `config.json` of the bundle in the folder `bundle`, which should be
    /// absolute: relative paths of the document are below it.
    ///
    /// Only what [`ContainerSpec`] holds is read, and that is checked strictly. Everything else may be
    /// absent, unknown or wrong; `null` is the same as absent.
    ///
    /// ```
    /// use std::path::Path;
    /// use reaper_spec::ContainerSpec;
    ///
    /// let json = br#"{"process": {"args": ["true"]}, "root": {"path": "rootfs"}}"#;
    /// let workload = ContainerSpec::parse(json, Path::new("/bundle"))?;
    /// assert_eq!(workload.process.cwd, Path::new("/"));
    /// assert_eq!(workload.rootfs.as_deref(), Some(Path::new("/bundle/rootfs")));
    ///
    /// let error = ContainerSpec::parse(br#"{"process": {"args": []}}"#, Path::new("/b")).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "/b/config.json: process.args: expected an array with at least a program, \
    ///      found an empty array"
    /// );
    /// # Ok::<(), reaper_spec::Error>(())
    /// ```
    ///
    /// # Errors
    /// It is not JSON, or a value that is read is wrong; the error names its path.
    pub fn parse(json: &[u8], bundle: &Path) -> std::result::Result<Self, Error> {
        let origin = Origin::File(bundle.join("config.json"));
        let value = json::parse(json, &origin)?;
        read(&value, bundle).map_err(|invalid| invalid.of(origin))
    }
}

fn read(document: &Value, bundle: &Path) -> Result<ContainerSpec> {
    let root = Node::root(document);
    root.object("an object, OCI's config.json")?;
    let mut process = process::parse::read(&root.get("process")?)?;
    process.scheduling.personality = root
        .get("linux")?
        .get("personality")?
        .opt(process::scheduling::personality)?;
    Ok(ContainerSpec {
        process,
        rootfs: root.get("root")?.opt(|node| rootfs(node, bundle))?,
        mounts: root
            .get("mounts")?
            .items("an array of mounts", |node| mount(node, bundle))?,
        cgroups_path: root
            .get("linux")?
            .get("cgroupsPath")?
            .opt(cgroups_path)?
            .flatten(),
        user_namespace: root
            .get("linux")?
            .get("namespaces")?
            .items("an array of namespaces", namespace)?
            .iter()
            .any(|kind| kind == "user"),
        seccomp: root.get("linux")?.get("seccomp")?.opt(seccomp::read)?,
        annotations: root
            .get("annotations")?
            .opt(annotations)?
            .unwrap_or_default(),
    })
}

fn rootfs(node: &Node<'_>, bundle: &Path) -> Result<PathBuf> {
    let path = node.get("path")?;
    match path.string()? {
        "" => Err(path.invalid("a path")),
        text => Ok(bundle.join(text)),
    }
}

fn mount(node: &Node<'_>, bundle: &Path) -> Result<Mount> {
    node.object("an object with a destination")?;
    let destination = node.get("destination")?;
    if !destination.string()?.starts_with('/') {
        return Err(destination.invalid("an absolute path"));
    }
    let mut mount = Mount {
        destination: destination.string()?.into(),
        // Both are left out by Go where they are empty.
        typ: node
            .get("type")?
            .opt(Node::owned)?
            .filter(|kind| !kind.is_empty()),
        source: node
            .get("source")?
            .opt(Node::string)?
            .filter(|s| !s.is_empty())
            .map(PathBuf::from),
        options: node
            .get("options")?
            .items("an array of strings", |item| item.owned())?,
    };
    if mount.is_bind() {
        mount.source = mount.source.map(|source| bundle.join(source));
    }
    Ok(mount)
}

/// The type of a namespace.
fn namespace(node: &Node<'_>) -> Result<String> {
    node.object("an object with a type")?;
    node.get("type")?.owned()
}

fn cgroups_path(node: &Node<'_>) -> Result<Option<CgroupsPath>> {
    match node.string()? {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: crate::CgroupsPathError| {
                node.invalid(format!("a cgroup's path ({error})"))
            }),
    }
}

fn annotations(node: &Node<'_>) -> Result<BTreeMap<String, String>> {
    let object = node.object("an object of strings")?;
    let entry = |key: &String| Ok((key.clone(), node.get(key)?.owned()?));
    object.keys().map(entry).collect()
}
