//! What of Reaper reads what others have written, each as a function of bytes that panics where a
//! promise is broken: that no input panics, and that what is understood is written and read again
//! as the same.
//!
//! `tests/fuzz` lets libFuzzer look for inputs that do so, guided by the code that each reaches. What it has
//! found, and an example of each kind of input, is in `corpus`, by target: a test runs each target on
//! all of them.

use std::{collections::BTreeMap, path::Path};

use reaper_spec::{
    CgroupsPath, Config, ContainerId, ContainerSpec, CriAnnotations, ExecId, Mount, OverlayScope,
    ProcessSpec, Resources,
};
use reaper_state::format;
use serde_json::Value;

/// A target: its name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, in the order of their names.
pub const TARGETS: &[Target] = &[
    ("annotations", annotations),
    ("cgroups-path", cgroups_path),
    ("config-json", config_json),
    ("config-toml", config_toml),
    ("monitor-message", reaper_exec::fuzzing::message),
    ("monitor-record", |bytes| {
        _ = reaper_exec::fuzzing::record(bytes);
    }),
    ("mount-options", mount_options),
    ("mountinfo", reaper_overlay::fuzzing::mounts),
    ("names", names),
    ("overlay-record", |bytes| {
        _ = reaper_overlay::fuzzing::record(bytes);
    }),
    ("proc", proc),
    ("process-json", process_json),
    ("resources-json", resources_json),
    ("seccomp", reaper_exec::fuzzing::seccomp_filter),
    ("state-record", state_record),
    ("stream-target", stream_target),
    ("whiteout-names", reaper_overlay::fuzzing::archive_name),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|(known, _)| *known == name)
}

/// A message that an administrator reads is not empty.
fn is_message(error: &dyn std::error::Error) {
    assert!(!error.to_string().is_empty(), "{error:?}");
}

/// Annotations of a pod, as a JSON object of strings, under a configuration that allows all of them.
fn annotations(bytes: &[u8]) {
    let Ok(annotations) = serde_json::from_slice::<BTreeMap<String, String>>(bytes) else {
        return;
    };
    CriAnnotations::from_annotations(&annotations);
    let mut config = Config::default();
    let before = config.clone();
    if let Err(error) = config.apply_annotations(&annotations) {
        is_message(&error);
        assert_eq!(config, before, "a refusal changes nothing");
    }
    config
        .apply_options("[annotations]\nallow = [\"overlay-scope\", \"overlay-name\", \"dns-mode\"]")
        .expect("the options of this target");
    let _ = config.apply_annotations(&annotations);
}

fn cgroups_path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match CgroupsPath::parse(text) {
        Ok(path) => assert_eq!(CgroupsPath::parse(&path.to_string()), Ok(path)),
        Err(error) => is_message(&error),
    }
}

fn config_json(bytes: &[u8]) {
    if let Err(error) = ContainerSpec::parse(bytes, Path::new("/bundle")) {
        is_message(&error);
    }
}

/// The options of a containerd runtime handler: a configuration file's contents.
fn config_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut config = Config::default();
    let before = config.clone();
    if let Err(error) = config.apply_options(text) {
        is_message(&error);
        assert_eq!(config, before, "a refusal changes nothing");
    }
}

/// The mounts of a bundle, a JSON array as in config.json.
fn mount_options(bytes: &[u8]) {
    let Ok(mounts) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let config =
        serde_json::json!({ "process": { "cwd": "/", "args": ["true"] }, "mounts": mounts });
    let Ok(container) = ContainerSpec::parse(config.to_string().as_bytes(), Path::new("/bundle"))
    else {
        return;
    };
    let mounts: &[Mount] = &container.mounts;
    mounts
        .iter()
        .for_each(reaper_overlay::fuzzing::mount_options);
}

/// Ids and scopes that are accepted are the same when they are read again, and safe as file names.
fn names(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<ContainerId>() {
        is_file_name(id.as_str());
    }
    if let Ok(id) = text.parse::<ExecId>() {
        is_file_name(id.as_str());
    }
    if let Ok(scope) = text.parse::<reaper_overlay::Scope>() {
        is_file_name(scope.as_str());
    }
    if let Ok(scope) = text.parse::<OverlayScope>() {
        assert_eq!(scope.to_string().parse(), Ok(scope));
    }
}

fn is_file_name(name: &str) {
    assert!(
        !name.is_empty() && name != "." && name != ".." && name.len() <= 255,
        "{name:?}"
    );
    assert!(!name.contains(['/', '\0']), "{name:?}");
}

fn proc(bytes: &[u8]) {
    reaper_exec::fuzzing::stat(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        reaper_exec::fuzzing::own_cgroups(text);
    }
}

fn process_json(bytes: &[u8]) {
    if let Err(error) = ProcessSpec::parse(bytes) {
        is_message(&error);
    }
}

fn resources_json(bytes: &[u8]) {
    match Resources::parse(bytes) {
        Ok(resources) => {
            let json = serde_json::to_vec(&resources).expect("resources can be written");
            let again: Resources = serde_json::from_slice(&json).expect("they can be read again");
            assert_eq!(again, resources);
        }
        Err(error) => is_message(&error),
    }
}

fn state_record(bytes: &[u8]) {
    match format::decode(bytes) {
        Ok(stored) => {
            let text = format::encode(&stored.record, &stored.revision).expect("it can be written");
            assert_eq!(
                format::decode(text.as_bytes()).expect("it can be read"),
                stored
            );
        }
        Err(error) => is_message(&error),
    }
}

fn stream_target(bytes: &[u8]) {
    if let Ok(uri) = std::str::from_utf8(bytes) {
        reaper_exec::fuzzing::stream_target(uri);
    }
}
