//! The images that the tests use, made on the spot: an image archive as `ctr image import` reads.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::suite::busybox;

/// An image with a static busybox, of which Reaper uses nothing but the name.
pub const BUSYBOX: &str = "docker.io/library/reaper-busybox:test";
/// What the CRI starts a pod's sandbox from.
pub const PAUSE: &str = "docker.io/library/reaper-pause:test";
/// The busybox again, under a name that has "pause" in it.
pub const BUSYBOX_PAUSE: &str = "docker.io/library/not-a-pause-but-a-busybox:test";

/// A program that the images have and the node has not.
pub const TOOL: &str = "/opt/reaper-test-image/tool";

/// The commands that the images have.
const APPLETS: [&str; 18] = [
    "cat", "dd", "echo", "env", "false", "grep", "head", "id", "kill", "ls", "seq", "sh", "sleep",
    "stty", "tr", "true", "tty", "wc",
];

/// Writes an archive with all of the tests' images to `path`.
pub fn write_archive(path: &Path) -> std::io::Result<()> {
    let mut archive = Builder::new(fs::File::create(path)?);
    let layer = layer()?;
    let layer = blob(&mut archive, &layer)?;
    let images = [
        (BUSYBOX, "/bin/sh"),
        (BUSYBOX_PAUSE, "/bin/sh"),
        (PAUSE, "/pause"),
    ];
    let mut manifests = Vec::new();
    for (name, command) in images {
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "Cmd": [command], "Env": ["PATH=/bin:/usr/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
        });
        let mut config = blob(&mut archive, config.to_string().as_bytes())?;
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let mut layer = layer.clone();
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        let mut manifest = blob(&mut archive, manifest.to_string().as_bytes())?;
        manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
        manifest["annotations"] = json!({ "io.containerd.image.name": name });
        manifests.push(manifest);
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    file(
        &mut archive,
        "index.json",
        0o644,
        index.to_string().as_bytes(),
    )?;
    file(
        &mut archive,
        "oci-layout",
        0o644,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    archive.finish()
}

/// Writes the images' root filesystem, as `podman import` reads it.
pub fn write_root(path: &Path) -> std::io::Result<()> {
    fs::write(path, layer()?)
}

/// Go's name for this machine's architecture, as image configurations have it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The root filesystem of all images.
fn layer() -> std::io::Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for dir in ["bin/", "dev/", "etc/", "proc/", "run/", "sys/", "tmp/"] {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        layer.append_data(&mut header, dir, std::io::empty())?;
    }
    file(&mut layer, "bin/busybox", 0o755, &fs::read(busybox())?)?;
    file(
        &mut layer,
        "pause",
        0o755,
        b"#!/bin/sh\ntrap 'exit 0' TERM INT\nsleep 100000 & wait\n",
    )?;
    file(
        &mut layer,
        &TOOL[1..],
        0o755,
        b"#!/bin/sh\necho brought along\n",
    )?;
    for applet in APPLETS {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    layer.into_inner()
}

/// Adds a blob, and returns its descriptor without a media type.
fn blob<W: std::io::Write>(archive: &mut Builder<W>, bytes: &[u8]) -> std::io::Result<Value> {
    let digest: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    file(archive, &format!("blobs/sha256/{digest}"), 0o644, bytes)?;
    Ok(json!({ "digest": format!("sha256:{digest}"), "size": bytes.len() }))
}

fn file<W: std::io::Write>(
    archive: &mut Builder<W>,
    path: &str,
    mode: u32,
    bytes: &[u8],
) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes)
}
