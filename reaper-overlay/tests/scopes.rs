//! Who shares an overlay with whom, and how a scope comes into being.

mod common;

use std::{
    fs,
    process::{Command, Stdio},
};

use common::*;
use reaper_overlay::{FilesystemIsolation, Session, SharedOverlay};
use reaper_spec::OverlayScope;

#[test]
fn members_of_a_scope_see_each_others_writes() {
    isolated(|dir| {
        let mut requests = Vec::new();
        for (id, pod, namespace) in [("a", "p1", "n1"), ("b", "p1", "n1"), ("c", "p2", "n1")] {
            let mut request = request(dir, id, OverlayScope::Pod);
            request.pod = Some(pod.to_owned());
            request.kubernetes_namespace = Some(namespace.to_owned());
            requests.push(request);
        }
        let pods: Vec<_> = requests.iter().map(open).collect();
        sh(&pods[0], "echo pod >/mark");
        assert_eq!(sh(&pods[1], "cat /mark"), "pod");
        assert_eq!(sh(&pods[2], "ls /mark 2>/dev/null || echo none"), "none");
        for request in &mut requests {
            request.overlay.scope = OverlayScope::Namespace;
        }
        let namespaces: Vec<_> = requests.iter().map(open).collect();
        sh(&namespaces[0], "echo namespace >/mark");
        assert_eq!(sh(&namespaces[2], "cat /mark"), "namespace");
        assert_eq!(sh(&pods[1], "cat /mark"), "pod");
        let own = open(&request(dir, "a", OverlayScope::Container));
        assert_eq!(sh(&own, "ls /mark 2>/dev/null || echo none"), "none");
    });
}

/// Whoever of the two is second finds the lock of the members held, for a moment, by the first.
#[test]
fn a_pods_scope_goes_with_it_though_its_last_member_leaves_at_that_moment() {
    isolated(|dir| {
        for round in 0..10 {
            let pod = format!("p{round}");
            let of_pod = |id: &str| {
                let mut request = request(dir, id, OverlayScope::Pod);
                request.pod = Some(pod.clone());
                request
            };
            let member = open(&of_pod("member"));
            // A sandbox, with which its pod's scope is deleted.
            let sandbox = of_pod(&pod);
            std::thread::scope(|scope| {
                scope.spawn(|| SharedOverlay::new().remove(&sandbox).unwrap());
                member.close().unwrap();
            });
            let left = fs::read_dir(sandbox.overlay.base.join("scopes")).unwrap();
            assert_eq!(left.count(), 0, "in round {round}");
        }
    });
}

#[test]
fn scope_outlives_its_members_without_any_process() {
    isolated(|dir| {
        let first = open(&request(dir, "a", OverlayScope::Node));
        sh(&first, "echo kept >/mark");
        first.close().unwrap();
        let own = format!("/proc/{}/task", std::process::id());
        for task in fs::read_dir(own).unwrap() {
            let children = task.unwrap().path().join("children");
            assert_eq!(
                fs::read_to_string(children).unwrap(),
                "",
                "no process keeps it"
            );
        }
        assert_eq!(
            sh(&open(&request(dir, "b", OverlayScope::Node)), "cat /mark"),
            "kept"
        );
    });
}

#[test]
fn two_hundred_concurrent_starters_share_one_overlay() {
    isolated(|dir| {
        let starters: Vec<_> = (0..200)
            .map(|number| {
                Command::new(std::env::current_exe().unwrap())
                    .args([
                        "--exact",
                        &beside("one_starter"),
                        "--test-threads=1",
                        "--nocapture",
                    ])
                    .env("REAPER_STARTER", format!("c{number}"))
                    .env("REAPER_STARTER_DIR", dir)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for starter in starters {
            let output = starter.wait_with_output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let session = open(&request(dir, "last", OverlayScope::Node));
        assert_eq!(sh(&session, "ls /starters | wc -l"), "200");
        let layers = dir.join("base/scopes/node");
        let uppers = fs::read_dir(layers).unwrap();
        let uppers =
            uppers.filter(|dir| dir.as_ref().unwrap().path().join("upper/starters").exists());
        assert_eq!(uppers.count(), 1);
    });
}

/// One process of the test above.
#[test]
fn one_starter() {
    let (Ok(id), Ok(dir)) = (
        std::env::var("REAPER_STARTER"),
        std::env::var("REAPER_STARTER_DIR"),
    ) else {
        return;
    };
    let session = open(&request(dir.as_ref(), &id, OverlayScope::Node));
    sh(
        &session,
        &format!("mkdir -p /starters; touch /starters/{id}"),
    );
    session.close().unwrap();
}

#[test]
fn a_killed_starter_leaves_a_usable_scope() {
    isolated(|dir| {
        for number in 0..60 {
            let base = dir.join(format!("killed-{}", number / 20));
            fs::create_dir_all(&base).unwrap();
            let mut starter = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    &beside("one_starter"),
                    "--test-threads=1",
                    "--nocapture",
                ])
                .env("REAPER_STARTER", format!("c{number}"))
                .env("REAPER_STARTER_DIR", &base)
                // Where coverage is measured, half a profile among the others would be an error.
                .env("LLVM_PROFILE_FILE", dir.join("%p.profraw"))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // Somewhere on its way: it takes about 30 ms from its start to its end.
            let spin = std::time::Instant::now();
            while spin.elapsed().as_micros() < 700 * (number % 20 + 1) {
                std::hint::spin_loop();
            }
            starter.kill().unwrap();
            starter.wait().unwrap();
            let id = format!("after{number}");
            let session = open(&request(&base, &id, OverlayScope::Node));
            sh(&session, "mkdir -p /starters; touch /starters/again");
            session.close().unwrap();
        }
    });
}

#[test]
fn scope_is_removed_with_last_member_or_container_if_asked() {
    isolated(|dir| {
        let isolation = SharedOverlay::new().remove_when_unused();
        let request_a = request(dir, "a", OverlayScope::Group("g".to_owned()));
        let request_b = request(dir, "b", OverlayScope::Group("g".to_owned()));
        let a = Session::open(&isolation, &request_a).unwrap();
        let b = Session::open(&isolation, &request_b).unwrap();
        sh(&a, "touch /mark");
        a.close().unwrap();
        sh(&b, "test -e /mark");
        b.close().unwrap();
        assert!(!dir.join("base/scopes/group-g").exists());

        let own = request(dir, "mine", OverlayScope::Container);
        let session = open(&own);
        sh(&session, "touch /mark");
        session.close().unwrap();
        assert!(
            dir.join("base/scopes/container-mine").exists(),
            "kept to look at"
        );
        SharedOverlay::new().remove(&own).unwrap();
        SharedOverlay::new().remove(&own).unwrap();
        assert!(!dir.join("base/scopes/container-mine").exists());
    });
}

#[test]
fn pod_scope_is_removed_with_sandbox_or_its_last_member() {
    isolated(|dir| {
        let of_pod = |id: &str| {
            let mut request = request(dir, id, OverlayScope::Pod);
            request.pod = Some("sandbox".to_owned());
            request
        };
        let scope = dir.join("base/scopes/pod-sandbox");
        let isolation = SharedOverlay::new();
        isolation.remove(&of_pod("sandbox")).unwrap();
        open(&of_pod("a")).close().unwrap();
        isolation.remove(&of_pod("a")).unwrap();
        assert!(scope.exists(), "the rest of the pod may need it");
        isolation.remove(&of_pod("sandbox")).unwrap();
        assert!(!scope.exists());

        let (a, b) = (open(&of_pod("a")), open(&of_pod("b")));
        isolation.remove(&of_pod("sandbox")).unwrap();
        sh(&a, "echo still >/here");
        a.close().unwrap();
        assert_eq!(sh(&b, "cat /here"), "still");
        b.close().unwrap();
        assert!(!scope.exists());
        let locks = fs::read_dir(dir.join("base/live/members")).unwrap();
        assert_eq!(locks.count(), 0);
    });
}

#[test]
fn same_id_in_another_state_root_has_its_own_scope() {
    isolated(|dir| {
        let of =
            |root: &str| request(dir, "c1", OverlayScope::Container).with_state_root(root.as_ref());
        let (one, other) = (of("/run/reaper"), of("/run/reaper/ns/k8s.io"));
        let (first, second) = (open(&one), open(&other));
        sh(&first, "touch /mark");
        assert_eq!(sh(&second, "test -e /mark || echo none"), "none");
        // Nor are they one member of what they do share.
        let shared = |request: &reaper_overlay::ViewRequest| {
            let mut request = request.clone();
            request.overlay.scope = OverlayScope::Node;
            open(&request)
        };
        let (a, b) = (shared(&one), shared(&other));
        a.close().unwrap();
        let overlays = reaper_overlay::Overlays::new(&one.overlay);
        let node = overlays.list().unwrap().pop().unwrap();
        assert_eq!(node.scope.as_str(), "node");
        assert_eq!(node.members, ["c1~k8s.io"]);
        b.close().unwrap();
    });
}

/// What the host unmounts and removes while a scope is made need not be protected any more.
#[test]
fn scopes_can_be_made_while_host_mounts_change() {
    const COME_AND_GO: &str = "while [ -e run ]; do
        for i in 1 2 3 4 5; do
            mkdir $0$i; mount -t tmpfs x $0$i; mkdir $0$i/inner; mount --bind /etc $0$i/inner
        done
        for i in 1 2 3 4 5; do umount -l $0$i/inner; umount -l $0$i; rmdir $0$i; done
    done";
    isolated(|dir| {
        let run = dir.join("run");
        fs::write(&run, "").unwrap();
        let others = ["one", "two"].map(|name| {
            let mut others = Command::new("sh");
            others.args(["-c", COME_AND_GO, name]).current_dir(dir);
            others.spawn().unwrap()
        });
        let made: Vec<_> = (0..20)
            .map(|number| {
                let id = format!("c{number}");
                Session::open(
                    &SharedOverlay::new(),
                    &request(dir, &id, OverlayScope::Container),
                )
            })
            .collect();
        fs::remove_file(&run).unwrap();
        for mut others in others {
            assert!(others.wait().unwrap().success());
        }
        for session in made {
            session.unwrap().close().unwrap();
        }
    });
}
