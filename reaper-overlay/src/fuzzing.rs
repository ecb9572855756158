//! What the workspace's fuzz targets call: how this crate reads what others have written. Each
//! function panics where a promise is broken.

use std::{
    ffi::OsString,
    fmt::Debug,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::Path,
};

use reaper_spec::Mount;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    manage::Journal,
    mountinfo::{self, escape, unescape},
    store::{
        layer_table::{Table, TableHeader},
        mount_points::MountPointRegistry,
    },
    volume::options::Options,
};

/// The options of a mount.
pub fn mount_options(mount: &Mount) {
    let _ = Options::parse(mount);
}

/// The records of scopes, volumes and commits. What is written of one is read as the same.
pub fn record(json: &[u8]) {
    is_kept::<MountPointRegistry>(json);
    is_kept::<Journal>(json);
    if is_kept::<Table>(json) {
        serde_json::from_slice::<TableHeader>(json).expect("the header of a table");
    }
}

fn is_kept<T: Serialize + DeserializeOwned + Debug>(json: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(json) else {
        return false;
    };
    let once = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&once).unwrap_or_else(|error| panic!("{once}: {error}"));
    assert_eq!(
        serde_json::to_string(&again).expect("it can be written again"),
        once
    );
    true
}

/// `mountinfo`, whose paths come back from their escaped form as they were.
pub fn mounts(text: &[u8]) {
    for mount in mountinfo::parse(text) {
        let escaped = escape(mount.mount_point.as_os_str());
        assert!(!escaped.contains([' ', '\n', '\t']), "{escaped:?}");
        assert_eq!(Path::new(&unescape(escaped.as_bytes())), mount.mount_point);
    }
    let name = OsString::from_vec(text.to_vec());
    assert_eq!(unescape(escape(&name).as_bytes()).as_bytes(), text);
}
