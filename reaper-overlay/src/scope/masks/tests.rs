use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::{
    linux::file_attributes,
    mount::mask::{LayerStyle, write_layer},
};

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in [
        "keys/a_key",
        "keys/a_key.pub",
        "private/one.key",
        "private/ca.key",
        "plain",
    ] {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "secret").unwrap();
    }
    dir
}

fn config(dir: &Path, replace: &[&str], except: &[&str]) -> MaskConfig {
    let below = |list: &[&str]| {
        list.iter()
            .map(|name| dir.join(name).to_str().unwrap().to_owned())
            .collect()
    };
    MaskConfig {
        replace: Some(below(replace)),
        add: Vec::new(),
        except: below(except),
    }
}

fn shown(dir: &Path, config: &MaskConfig) -> Vec<(String, How)> {
    let dir = dir.canonicalize().unwrap();
    find(config, &[])
        .unwrap()
        .into_iter()
        .map(|mask| {
            (
                mask.path
                    .strip_prefix(&dir)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
                mask.how,
            )
        })
        .collect()
}

#[test]
fn mask_globs_select_and_exceptions_exclude_paths() {
    let dir = tree();
    let config = config(
        dir.path(),
        &["keys/*_key", "private", "new"],
        &["private/ca.*"],
    );
    assert_eq!(
        shown(dir.path(), &config),
        [
            ("keys/a_key".to_owned(), How::Absent),
            ("new".to_owned(), How::Absent),
            ("private/one.key".to_owned(), How::Absent),
        ]
    );
}

#[test]
fn a_directory_is_hidden_as_a_whole() {
    let dir = tree();
    let config = config(
        dir.path(),
        &["private", "private/one.key", "missing/x"],
        &[],
    );
    assert_eq!(
        shown(dir.path(), &config),
        [("private".to_owned(), How::Empty)]
    );
}

#[test]
fn mask_of_symlink_hides_its_target_too() {
    let dir = tree();
    std::os::unix::fs::symlink("keys", dir.path().join("link")).unwrap();
    let config = config(dir.path(), &["link"], &[]);
    let expected = [
        ("keys".to_owned(), How::Empty),
        ("link".to_owned(), How::Absent),
    ];
    assert_eq!(shown(dir.path(), &config), expected);
}

#[test]
fn a_wrong_pattern_is_named() {
    let config = MaskConfig {
        add: vec!["/etc/[".to_owned()],
        ..MaskConfig::default()
    };
    assert!(
        find(&config, &[])
            .unwrap_err()
            .to_string()
            .contains("/etc/[")
    );
}

#[test]
fn mask_layer_has_whiteouts_and_host_attributes() {
    let dir = tree();
    let root = dir.path().canonicalize().unwrap();
    fs::set_permissions(root.join("keys"), fs::Permissions::from_mode(0o751)).unwrap();
    let masks = find(&config(&root, &["keys/*_key", "private"], &[]), &[]).unwrap();
    let layer = tempfile::tempdir().unwrap();
    write_layer(layer.path(), &root, masks.iter(), LayerStyle::Trusted).unwrap();
    let keys = fs::metadata(layer.path().join("keys")).unwrap();
    assert_eq!(keys.mode() & 0o777, 0o751);
    let key = fs::symlink_metadata(layer.path().join("keys/a_key")).unwrap();
    assert!(file_attributes::is_whiteout(&key));
    assert!(file_attributes::is_opaque(&layer.path().join("private")).unwrap());
    assert!(!file_attributes::is_opaque(&layer.path().join("keys")).unwrap());
}

#[test]
fn hard_links_that_stay_visible_are_counted() {
    let dir = tree();
    fs::hard_link(dir.path().join("plain"), dir.path().join("alias")).unwrap();
    let count = |names: &[&str]| {
        let masks = find(&config(dir.path(), names, &[]), &[]).unwrap();
        let mask = masks.iter().find(|mask| mask.path.ends_with("plain"));
        aliases::hard_links(mask.unwrap(), &masks)
    };
    assert_eq!(count(&["plain"]), 1);
    assert_eq!(count(&["plain", "alias"]), 0);
}
