//! The host's secrets are not in the view, and account tools still work.

mod common;

use std::fs;

use common::*;
use reaper_spec::OverlayScope;

#[test]
fn secrets_are_hidden_by_default() {
    isolated(|dir| {
        // An /etc and a /root of this test's own, over the real ones.
        let etc = dir.join("etc");
        tool("cp", &["-a", "/etc", etc.to_str().unwrap()]);
        fs::write(
            etc.join("shadow"),
            "root:$6$secret:1::::::\ndaemon:*:1::::::\n",
        )
        .unwrap();
        fs::write(etc.join("gshadow"), "root:$6$secret::\n").unwrap();
        fs::create_dir_all(etc.join("ssh")).unwrap();
        fs::write(etc.join("ssh/ssh_host_rsa_key"), "secret").unwrap();
        fs::write(etc.join("ssh/ssh_host_rsa_key.pub"), "public").unwrap();
        fs::create_dir_all(etc.join("ssl/private")).unwrap();
        fs::write(etc.join("ssl/private/key"), "secret").unwrap();
        fs::create_dir_all(etc.join("kubernetes/pki")).unwrap();
        fs::write(etc.join("kubernetes/pki/ca.key"), "secret").unwrap();
        bind(&etc, "/etc".as_ref());
        mount_tmpfs("/root".as_ref());
        fs::create_dir_all("/root/.ssh").unwrap();
        fs::write("/root/.ssh/id", "secret").unwrap();

        let session = open(&request(dir, "a", OverlayScope::Node));
        let found = sh(
            &session,
            "cat /etc/shadow /etc/gshadow /etc/ssh/ssh_host_rsa_key /etc/ssl/private/* \
             /etc/kubernetes/pki/* /root/.ssh/* /etc/sudoers 2>/dev/null; true",
        );
        assert!(!found.contains("secret"), "{found}");
        assert!(found.contains("root:*:1::::::"), "{found}");
        assert_eq!(sh(&session, "cat /etc/ssh/ssh_host_rsa_key.pub"), "public");
        assert_eq!(sh(&session, "stat -c %a:%G /etc/shadow"), {
            let output = std::process::Command::new("stat")
                .args(["-c", "%a:%G", "/etc/shadow"])
                .output()
                .unwrap();
            String::from_utf8(output.stdout)
                .unwrap()
                .trim_end()
                .to_owned()
        });
        // An unmount shows nothing: there is no mount.
        for way in [
            "umount /etc/shadow",
            "umount -l /etc",
            "umount -l /root/.ssh",
        ] {
            assert!(!attempt(&session, way).status.success(), "{way}");
        }
        assert!(
            !attempt(
                &session,
                "mkdir /x; mount --bind / /x && cat /x/root/.ssh/id"
            )
            .status
            .success()
        );
        // A key that comes later is hidden as well where the name was fixed.
        fs::write(etc.join("sudoers"), "secret").unwrap();
        assert!(!attempt(&session, "cat /etc/sudoers").status.success());
        // Account tools write over the sanitised file.
        sh(
            &session,
            "useradd --no-create-home tester && grep -q ^tester: /etc/shadow",
        );
        assert!(
            !fs::read_to_string(etc.join("shadow"))
                .unwrap()
                .contains("tester")
        );
    });
}

#[test]
fn mask_list_can_be_extended_with_exceptions() {
    isolated(|dir| {
        mount_tmpfs("/opt".as_ref());
        for name in ["one.key", "two.key", "three.txt"] {
            fs::write(format!("/opt/{name}"), name).unwrap();
        }
        let mut request = request(dir, "a", OverlayScope::Node);
        request.overlay.masks.add = vec!["/opt/*.key".to_owned()];
        request.overlay.masks.except = vec!["/opt/two.*".to_owned()];
        assert_eq!(sh(&open(&request), "ls /opt"), "three.txt\ntwo.key");
    });
}

#[test]
fn what_is_hidden_is_not_seen_through_a_bind_mount_of_it_or_around_it() {
    isolated(|dir| {
        mount_tmpfs("/opt".as_ref());
        fs::create_dir_all("/opt/t/keys/deep").unwrap();
        fs::write("/opt/t/secret", "MASKME").unwrap();
        fs::write("/opt/t/open", "open").unwrap();
        fs::write("/opt/t/keys/deep/key", "MASKME").unwrap();
        fs::write("/opt/t/spared", "spared").unwrap();
        for file in ["/opt/file", "/opt/spared"] {
            fs::write(file, "").unwrap();
        }
        for dir in ["/opt/around", "/opt/whole", "/opt/part"] {
            fs::create_dir(dir).unwrap();
        }
        bind("/opt/t/secret".as_ref(), "/opt/file".as_ref());
        bind("/opt/t/spared".as_ref(), "/opt/spared".as_ref());
        bind("/opt/t".as_ref(), "/opt/around".as_ref());
        bind("/opt/t/keys".as_ref(), "/opt/whole".as_ref());
        bind("/opt/t/keys/deep".as_ref(), "/opt/part".as_ref());
        let mut request = request(dir, "a", OverlayScope::Node);
        request.overlay.masks.add = ["secret", "keys", "spared"]
            .map(|name| format!("/opt/t/{name}"))
            .to_vec();
        request.overlay.masks.except = vec!["/opt/spared".to_owned()];
        let session = open(&request);
        assert_eq!(sh(&session, "cat /opt/t/open /opt/around/open"), "openopen");
        let found = sh(&session, "cat $(find /opt -type f)");
        assert!(!found.contains("MASKME"), "{found}");
        assert_eq!(sh(&session, "cat /opt/spared"), "spared");
    });
}
