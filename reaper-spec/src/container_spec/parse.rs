//! Reading OCI's `config.json`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    ContainerSpec, Device, DeviceType, FileRestrictions, Mount, RootPropagation, Unsupported,
};
use crate::{
    CgroupsPath, Resources,
    error::{Error, Invalid, Origin},
    hooks,
    json::{self, Node},
    namespaces::{self, NamespaceKind, NamespacePath},
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
    root.get("ociVersion")?.opt(version)?;
    let mut process = process::parse::read(&root.get("process")?)?;
    let linux = root.get("linux")?;
    process.scheduling.personality = linux
        .get("personality")?
        .opt(process::scheduling::personality)?;
    process.labels.mount_label = linux.get("mountLabel")?.text()?;
    let namespaces = named_namespaces(&linux)?;
    let new_pid_namespace = namespaces
        .iter()
        .any(|(kind, path)| *kind == NamespaceKind::Pid && path.is_none());
    Ok(ContainerSpec {
        process,
        rootfs: root.get("root")?.opt(|node| rootfs(node, bundle))?,
        mounts: root
            .get("mounts")?
            .items("an array of mounts", |node| mount(node, bundle))?,
        restrictions: restrictions(&root, &linux)?,
        devices: linux.get("devices")?.items("an array of devices", device)?,
        rootfs_propagation: linux.get("rootfsPropagation")?.opt(propagation)?.flatten(),
        cgroups_path: linux.get("cgroupsPath")?.opt(cgroups_path)?.flatten(),
        resources: linux
            .get("resources")?
            .opt(|node| Resources::read(node.value(), "linux.resources"))?
            .unwrap_or_default(),
        seccomp: linux.get("seccomp")?.opt(seccomp::read)?,
        hooks: root.get("hooks")?.opt(hooks::read)?.unwrap_or_default(),
        new_pid_namespace,
        sysctls: linux.get("sysctl")?.opt(annotations)?.unwrap_or_default(),
        annotations: root
            .get("annotations")?
            .opt(annotations)?
            .unwrap_or_default(),
        unsupported: unsupported(&linux, &namespaces)?,
        namespaces: joined(namespaces),
    })
}

/// Refuses a document of another major version, whose fields can mean something else. Hand-written ones have none.
fn version(node: &Node<'_>) -> Result<()> {
    match node.string()?.split('.').next() {
        Some("1") => Ok(()),
        _ => Err(node.invalid("a version 1 of the runtime-spec, such as \"1.0.2\"")),
    }
}

/// A namespace as it is named: without a path it is a new one.
type Named = (NamespaceKind, Option<NamespacePath>);

fn named_namespaces(linux: &Node<'_>) -> Result<Vec<Named>> {
    let list = linux.get("namespaces")?;
    let all = list.items("an array of namespaces", namespaces::read)?;
    // Which of two counted would be anyone's guess (runtime-spec, config-linux.md, "Namespaces").
    let twice =
        |(at, (kind, _)): &(usize, &Named)| all[..*at].iter().any(|(earlier, _)| earlier == kind);
    match all.iter().enumerate().find(twice) {
        Some((_, (kind, _))) => Err(list.invalid(format!("one {kind} namespace at most"))),
        None => Ok(all),
    }
}

/// The namespaces that have a path, but for those that are refused.
fn joined(named: Vec<Named>) -> Vec<NamespacePath> {
    let is_known =
        |path: &NamespacePath| !matches!(path.kind, NamespaceKind::User | NamespaceKind::Time);
    let paths = named.into_iter().filter_map(|(_, path)| path);
    paths.filter(is_known).collect()
}

/// What would be missed, were it not there.
fn unsupported(linux: &Node<'_>, named: &[Named]) -> Result<Vec<Unsupported>> {
    const USER: &str = "a user namespace (hostUsers: false)";
    const TIME: &str = "a time namespace";
    let mut found = Vec::new();
    let mut refuse = |node: &Node<'_>, reason: &str| {
        found.push(Unsupported {
            field: node.at.to_string(),
            reason: format!("{reason} is not supported for a process on this machine"),
            concerns_users: reason == USER,
        });
    };
    let namespaces = linux.get("namespaces")?;
    for (kind, _) in named {
        match kind {
            NamespaceKind::User => refuse(&namespaces, USER),
            NamespaceKind::Time => refuse(&namespaces, TIME),
            _ => {}
        }
    }
    for key in ["uidMappings", "gidMappings"] {
        let mappings = linux.get(key)?;
        if has_objects(&mappings, "an array of mappings", "a mapping, an object")? {
            refuse(&mappings, USER);
        }
    }
    for (key, reason) in [
        ("timeOffsets", TIME),
        ("netDevices", "moving network devices"),
        ("memoryPolicy", "a memory policy"),
        ("intelRdt", "resctrl"),
    ] {
        let node = linux.get(key)?;
        let object = node.opt(|node| node.object("an object"))?;
        if object.is_some_and(|object| !object.is_empty()) {
            refuse(&node, reason);
        }
    }
    Ok(found)
}

/// Whether there is anything in a list of objects.
fn has_objects(node: &Node<'_>, list: &'static str, item: &'static str) -> Result<bool> {
    let items = node.items(list, |one| one.object(item).map(drop))?;
    Ok(!items.is_empty())
}

fn rootfs(node: &Node<'_>, bundle: &Path) -> Result<PathBuf> {
    let path = node.get("path")?;
    match path.string()? {
        "" => Err(path.invalid("a path")),
        text => Ok(bundle.join(text)),
    }
}

fn restrictions(root: &Node<'_>, linux: &Node<'_>) -> Result<FileRestrictions> {
    let paths = |key| linux.get(key)?.items("an array of paths", absolute);
    let read_only = root.get("root")?.get("readonly")?.opt(Node::boolean)?;
    Ok(FileRestrictions {
        read_only: read_only.unwrap_or_default(),
        masked_paths: paths("maskedPaths")?,
        read_only_paths: paths("readonlyPaths")?,
        lifted: false,
    })
}

fn device(node: &Node<'_>) -> Result<Device> {
    node.object("an object with a path and a type")?;
    let kind = node.get("type")?;
    let typ = match kind.string()? {
        "c" | "u" => DeviceType::Character,
        "b" => DeviceType::Block,
        "p" => DeviceType::Fifo,
        _ => return Err(kind.invalid("c, u, b or p")),
    };
    let number = |key| node.get(key)?.opt(|number| number.integer(0..=u32::MAX));
    let needed = |key| match typ {
        DeviceType::Fifo => Ok(number(key)?.unwrap_or_default()),
        _ => node.get(key)?.integer(0..=u32::MAX),
    };
    Ok(Device {
        path: absolute(&node.get("path")?)?,
        typ,
        major: needed("major")?,
        minor: needed("minor")?,
        // Engines write the type of the file into it as well.
        mode: number("fileMode")?.map(|mode| mode & 0o7777),
        uid: number("uid")?,
        gid: number("gid")?,
    })
}

fn propagation(node: &Node<'_>) -> Result<Option<RootPropagation>> {
    match node.string()? {
        "" => Ok(None),
        "shared" | "rshared" => Ok(Some(RootPropagation::Shared)),
        "slave" | "rslave" => Ok(Some(RootPropagation::Slave)),
        "private" | "rprivate" => Ok(Some(RootPropagation::Private)),
        "unbindable" | "runbindable" => Ok(Some(RootPropagation::Unbindable)),
        _ => Err(node.invalid("shared, slave, private or unbindable")),
    }
}

fn absolute(node: &Node<'_>) -> Result<PathBuf> {
    match node.string()? {
        text if text.starts_with('/') => Ok(text.into()),
        _ => Err(node.invalid("an absolute path")),
    }
}

fn mount(node: &Node<'_>, bundle: &Path) -> Result<Mount> {
    node.object("an object with a destination")?;
    let mut mount = Mount {
        destination: absolute(&node.get("destination")?)?,
        typ: node.get("type")?.text()?,
        source: node.get("source")?.text()?.map(PathBuf::from),
        options: node
            .get("options")?
            .items("an array of strings", |item| item.owned())?,
    };
    // Mappings ask for it as well (runtime-spec, config.md, "Mounts").
    let is_mapped = |key| has_objects(&node.get(key)?, "an array of mappings", "an object");
    let has_option = mount.options.iter().any(|o| o == "idmap" || o == "ridmap");
    if !has_option && (is_mapped("uidMappings")? || is_mapped("gidMappings")?) {
        mount.options.push("idmap".to_owned());
    }
    if mount.is_bind() {
        mount.source = mount.source.map(|source| bundle.join(source));
    }
    Ok(mount)
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
