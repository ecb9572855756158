//! What the workspace's fuzz targets call: how this crate reads what others have written. Each
//! function panics where a promise is broken.

use std::{
    ffi::OsString,
    fmt::Debug,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Component, Path, PathBuf},
};

use reaper_spec::Mount;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    manage::{self, Journal},
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

/// The records of scopes, volumes and commits. What is written of one is read as the same. Whether it
/// is one.
pub fn record(json: &[u8]) -> bool {
    let is_table = is_kept::<Table>(json);
    if is_table {
        serde_json::from_slice::<TableHeader>(json).expect("the header of a table");
    }
    let is_other = [
        is_kept::<MountPointRegistry>(json),
        is_kept::<Journal>(json),
    ];
    is_table || is_other.contains(&true)
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

/// The names of a file in an archive: as it is, and as what was removed. No file is taken for another
/// one's whiteout, and a whiteout is that of one file.
pub fn archive_name(text: &[u8]) {
    let text: Vec<u8> = text.iter().copied().filter(|byte| *byte != 0).collect();
    let path: PathBuf = Path::new("/").join(OsString::from_vec(text));
    let is_normal = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    // As a walk finds them: without `..`, doubled slashes and one at the end.
    let walked: PathBuf = path.components().filter(|part| is_normal(*part)).collect();
    if walked.file_name().is_none() {
        return;
    }
    let whiteout = manage::whiteout_name(&walked);
    let (folder, last) = match whiteout.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => whiteout.split_at(slash + 1),
        None => (&[][..], &whiteout[..]),
    };
    let removed = last.strip_prefix(b".wh.").expect("the mark of a whiteout");
    let named = [b"/", folder, removed].concat();
    assert_eq!(named, walked.as_os_str().as_bytes());
    match manage::archive_name(&walked) {
        Some(name) => assert_eq!([b"/", &name[..]].concat(), walked.as_os_str().as_bytes()),
        None => assert!(removed.starts_with(b".wh."), "{walked:?} is left out"),
    }
    let mistaken = Path::new("/").join(OsString::from_vec(whiteout));
    assert_eq!(manage::archive_name(&mistaken), None, "{mistaken:?}");
}
