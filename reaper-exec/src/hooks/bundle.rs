//! The bundle that hooks are told of.
//!
//! Hooks find the container's root in the `config.json` of the bundle that the state names. In the
//! container's own bundle that is the image's, which the container does not run in. So hooks get a
//! bundle of their own in the container's folder: the same but for the root, by which they reach what
//! the container sees.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use reaper_spec::MAX_CONFIG_SIZE;
use serde_json::{Map, Value, json};

const CONFIG: &str = "config.json";

/// The name of the root, where the container's bundle has none that is relative.
const ROOT: &str = "rootfs";

/// The file in the folder of hooks that is there once those of the end have been begun. No name of the
/// container's bundle may stand for it, or they would never be run.
const END_CLAIMED: &str = ".poststop";

/// What is in the bundle of hooks.
#[derive(Debug)]
pub(crate) struct HookBundle {
    /// The text of its `config.json`.
    pub(crate) config: Vec<u8>,
    /// Its root, relative.
    pub(crate) root: PathBuf,
    /// The container's own bundle.
    original: PathBuf,
}

impl HookBundle {
    /// Reads the container's bundle in the folder `original`, which need not have a document: a
    /// container may be made of something else.
    pub(crate) fn read(original: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        match fs::File::open(original.join(CONFIG)) {
            Ok(file) => _ = file.take(MAX_CONFIG_SIZE).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => text.extend(b"{}"),
            Err(error) => return Err(error),
        }
        let mut document: Map<String, Value> = serde_json::from_slice(&text)?;
        let root = document.entry("root").or_insert_with(|| json!({}));
        let named = root["path"].as_str().map(Path::new);
        let root = match named.filter(|path| is_inside(path)) {
            Some(path) => path.to_owned(),
            None => {
                if !root.is_object() {
                    *root = json!({});
                }
                root["path"] = ROOT.into();
                PathBuf::from(ROOT)
            }
        };
        Ok(Self {
            config: serde_json::to_vec(&document)?,
            root,
            original: original.to_owned(),
        })
    }
}

/// Whether this is a path below the folder that it is relative to, and not that folder, and has no name of
/// Reaper's own.
fn is_inside(path: &Path) -> bool {
    let mut parts = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .peekable();
    let is_free = |part: &Component<'_>| {
        ![CONFIG, END_CLAIMED]
            .iter()
            .any(|own| part.as_os_str() == *own)
    };
    parts.peek().is_some_and(is_free) && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The folder of the bundle of hooks. It is made when the first hooks of a container are run, so where it
/// is the hooks of the end are due.
#[derive(Debug, Clone)]
pub(crate) struct HookFolder(PathBuf);

impl HookFolder {
    /// That of the container with the folder `dir`.
    pub(crate) fn of(dir: &Path) -> Self {
        Self(dir.join("hooks"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it. Its root leads to that of the process `pid`.
    pub(crate) fn make(&self, bundle: &HookBundle, pid: u32) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(&self.0)?;
        fs::write(self.0.join(CONFIG), &bundle.config)?;
        let root = self.0.join(&bundle.root);
        if let Some(parent) = root.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(format!("/proc/{pid}/root"), root)?;
        // What else hooks may look for, by the names that it has.
        for entry in fs::read_dir(&bundle.original).into_iter().flatten() {
            let name = entry?.file_name();
            if name == END_CLAIMED {
                continue;
            }
            match symlink(bundle.original.join(&name), self.0.join(&name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the hooks of the end are to be run now, by the caller: each container has them run once,
    /// also where one who was to run them was killed.
    pub(crate) fn claim_end(&self) -> bool {
        let claimed = self.0.join(END_CLAIMED);
        fs::File::options()
            .write(true)
            .create_new(true)
            .open(claimed)
            .is_ok()
    }

    /// Removes it, if it is there.
    pub(crate) fn remove(&self) {
        // What is left is a folder that the next container of this id removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &Value) -> (Value, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), document.to_string()).unwrap();
        let bundle = HookBundle::read(folder.path()).unwrap();
        let config = serde_json::from_slice(&bundle.config).unwrap();
        (config, bundle.root)
    }

    #[test]
    fn root_of_hooks_is_inside_of_their_bundle() {
        for (root, expected) in [
            (json!({"path": "rootfs"}), "rootfs"),
            (json!({"path": "./a/b/", "readonly": true}), "./a/b/"),
            (json!({"path": "/var/lib/overlay/merged"}), "rootfs"),
            (json!({"path": "../other"}), "rootfs"),
            (json!({"path": "."}), "rootfs"),
            (json!({"readonly": true}), "rootfs"),
            (Value::Null, "rootfs"),
        ] {
            let document = json!({"root": root, "hooks": {"poststop": []}, "x": 1});
            let (config, path) = read(&document);
            assert_eq!(path, Path::new(expected), "{root}");
            assert_eq!(config["root"]["path"], expected, "{root}");
            assert_eq!(config["root"]["readonly"], root["readonly"]);
            assert_eq!(
                (&config["hooks"], &config["x"]),
                (&document["hooks"], &json!(1))
            );
        }
        let empty = tempfile::tempdir().unwrap();
        let bundle = HookBundle::read(empty.path()).unwrap();
        assert_eq!(bundle.root, Path::new("rootfs"));
    }

    #[test]
    fn end_is_claimed_once_and_only_where_hooks_have_begun() {
        let container = tempfile::tempdir().unwrap();
        let original = tempfile::tempdir().unwrap();
        fs::write(original.path().join("log.json"), "x").unwrap();
        let folder = HookFolder::of(container.path());
        assert!(!folder.claim_end());
        let bundle = HookBundle::read(original.path()).unwrap();
        folder.make(&bundle, std::process::id()).unwrap();
        assert_eq!(fs::read(folder.path().join("log.json")).unwrap(), b"x");
        assert!(folder.path().join("rootfs/proc").is_dir());
        assert!(folder.claim_end());
        assert!(!folder.claim_end());
        folder.remove();
        assert!(!folder.path().exists() && original.path().join("log.json").exists());
    }
}
