use std::{io::Read as _, os::unix::fs::symlink};

use reaper_spec::{Config, ContainerId};
use rustix::fs::{RenameFlags, openat, renameat_with};

use super::*;
use crate::{
    contract::{ViewRequest, user::Privilege},
    volume::mount::find,
};

#[test]
fn what_was_checked_is_what_is_cloned_wherever_its_path_leads_by_then() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    for (folder, text) in [("data/own", "own"), ("secrets", "secret")] {
        fs::create_dir_all(dir.join(folder)).unwrap();
        fs::write(dir.join(folder).join("content"), text).unwrap();
    }
    let [own, out] = ["data/own", "data/out"].map(|name| dir.join(name));
    symlink("../secrets", &out).unwrap();
    let mut config = Config::default();
    let policy = format!("[policy]\nhost_paths = [\"{}/data\"]\n", dir.display());
    config.apply_options(&policy).unwrap();
    let mut view = ViewRequest::new(ContainerId::new("a").unwrap(), "/".into());
    view.allowed_mounts = config.policy.allowed_mounts();
    view.mounts = vec![Mount {
        destination: "/mnt".into(),
        typ: Some("bind".to_owned()),
        source: Some(own.clone()),
        options: vec!["rbind".to_owned()],
    }];
    let request = MountRequest::of_bundle(&view, Privilege::Root)
        .unwrap()
        .remove(0);

    let source = open_bound(&request).unwrap();
    renameat_with(CWD, &own, CWD, &out, RenameFlags::EXCHANGE).unwrap();
    let tree = tree_of(&request, source.as_ref()).unwrap();
    let content = openat(&tree, "content", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut text = String::new();
    fs::File::from(content).read_to_string(&mut text).unwrap();
    assert_eq!(text, "own");
    assert!(matches!(open_bound(&request), Err(Error::Policy(_))));

    let elsewhere = open_source(&own).unwrap();
    let source = source.unwrap();
    let stale = expect_same(source.as_fd(), elsewhere.as_fd(), &own, "find again").unwrap_err();
    assert_eq!(stale.errno(), Some(nix::libc::ESTALE));

    let content = Content::Path(own);
    let volume = Volume::new(request, content, Some(source), true, Interface::Classic);
    let said = find(&[volume]).unwrap_err().to_string();
    for reason in ["was replaced meanwhile", "mounts are not shared"] {
        assert!(said.contains(reason), "{said}");
    }
}
