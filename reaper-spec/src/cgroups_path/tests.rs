use std::path::Path;

use super::{CgroupsPath, CgroupsPathError as E};

fn relative(text: &str) -> Result<String, E> {
    CgroupsPath::parse(text).map(|path| path.relative().to_str().unwrap().to_owned())
}

#[test]
fn cgroupfs_paths_become_relative() {
    for (text, expected) in [
        (
            "/kubepods/besteffort/podX/abc",
            "kubepods/besteffort/podX/abc",
        ),
        ("default/abc", "default/abc"),
        ("//a/./b//", "a/b"),
        ("a:b", "a:b"),
        ("/a:b:c", "a:b:c"),
        ("/kubepods/cri:x:y", "kubepods/cri:x:y"),
        ("...", "..."),
    ] {
        assert_eq!(relative(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn systemd_paths_become_slices_and_a_scope() {
    for (text, expected) in [
        (
            "kubepods-besteffort-pod123.slice:cri-containerd:abc",
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod123.slice/\
             cri-containerd-abc.scope",
        ),
        ("machine.slice:libpod:abc", "machine.slice/libpod-abc.scope"),
        ("user.slice::abc", "user.slice/abc.scope"),
        (":runc:abc", "system.slice/runc-abc.scope"),
        ("::abc", "system.slice/abc.scope"),
        ("-.slice:runc:abc", "runc-abc.scope"),
        ("a.slice:ignored:a-b.slice", "a.slice/a-b.slice"),
    ] {
        assert_eq!(relative(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn invalid_cgroups_paths_are_refused() {
    for text in ["", "/", "//./"] {
        assert_eq!(relative(text), Err(E::Root), "{text}");
    }
    for text in ["..", "/a/../b", "a/..", "../x"] {
        assert_eq!(relative(text), Err(E::Parent), "{text}");
    }
    for text in ["a\0b", "a\nb", "a.slice:p:n\n", "a\0.slice:p:n"] {
        assert_eq!(relative(text), Err(E::Control), "{text:?}");
    }
    for text in [
        "foo:a:b",
        ".slice:a:b",
        "-a.slice:a:b",
        "a--b.slice:a:b",
        "a-.slice:a:b",
    ] {
        assert!(matches!(relative(text), Err(E::Slice(_))), "{text}");
    }
    for text in ["a.slice:p:", "a.slice:p:../../x", "a.slice:../p:x"] {
        assert!(matches!(relative(text), Err(E::Unit(_))), "{text}");
    }
    assert_eq!(relative(&"x".repeat(256)), Err(E::TooLong));
}

#[test]
fn deserialising_checks_and_keeps_what_was_serialised() {
    let path = CgroupsPath::parse("/a:b:c").unwrap();
    let json = serde_json::to_string(&path).unwrap();
    assert_eq!(json, r#""/a:b:c""#);
    let back: CgroupsPath = serde_json::from_str(&json).unwrap();
    assert_eq!(back.relative(), Path::new("a:b:c"));
    let error = serde_json::from_str::<CgroupsPath>(r#""a/../b""#).unwrap_err();
    assert!(error.to_string().contains(".."), "{error}");
}
