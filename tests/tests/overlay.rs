//! The overlay, on a node that is configured as Reaper is by default.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use reaper_tests::{Options, cri::container, on_each_with, runtime::until};

#[test]
fn what_is_written_is_shared_by_workloads_and_never_reaches_the_node() {
    on_each_with(&Options::default().overlay(), |node| {
        let path = format!("/var/lib/{}", node.name("file"));
        let write = format!("echo written >{path} && cat {path}");
        let output = node.ctr_run("writes", &["/bin/sh", "-c", &write]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, "written\n"),
            "{output:?}"
        );
        let output = node.ctr_run("reads", &["/bin/cat", &path]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (0, "written\n"),
            "{output:?}"
        );
        assert!(!Path::new(&path).exists(), "the node has no {path}");
    });
}

#[test]
fn a_pod_works_over_it_and_a_host_path_is_the_node_s() {
    on_each_with(&Options::default().overlay(), |node| {
        let pod = node.run_pod("covered");
        let volume = node.work().join("volume");
        fs::create_dir(&volume).expect("make a folder");
        let mut config = container(
            "writes",
            &["/bin/sh", "-c", "echo kept >/data-of-a-pod/file"],
        );
        config.mounts.push(reaper_tests::cri::messages::Mount {
            container_path: "/data-of-a-pod".to_owned(),
            host_path: volume.display().to_string(),
            ..Default::default()
        });
        let id = pod.start(&config);
        assert_eq!(
            node.cri().exited(&id).exit_code,
            0,
            "{:?}",
            pod.log("writes")
        );
        assert_eq!(
            fs::read_to_string(volume.join("file")).expect("read the file"),
            "kept\n"
        );
        assert!(
            !Path::new("/data-of-a-pod").exists(),
            "the node has no mount point"
        );
        pod.stop();
        pod.remove();
    });
}

/// The names of the scopes that a node has.
fn scopes(node: &reaper_tests::Node) -> Vec<String> {
    let dir = node.dir().join("overlay/scopes");
    let entries = fs::read_dir(dir).expect("list the scopes");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let names = entries.map(|entry| name(entry).to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn the_overlay_that_a_pod_has_for_itself_goes_with_it() {
    let options = Options::default()
        .overlay()
        .env("REAPER_OVERLAY_SCOPE", "pod");
    on_each_with(&options, |node| {
        let pod = node.run_pod("own");
        let write = pod.start(&container("writes", &["/bin/touch", "/mark-of-a-pod"]));
        assert_eq!(node.cri().exited(&write).exit_code, 0);
        let read = pod.start(&container("reads", &["/bin/ls", "/mark-of-a-pod"]));
        assert_eq!(node.cri().exited(&read).exit_code, 0, "it is the pod's");
        assert_eq!(scopes(node), [format!("pod-{}", pod.id)]);
        pod.stop();
        pod.remove();
        assert_eq!(scopes(node), Vec::<String>::new());

        // Nothing is left of it either if containerd has to clean up after the shim.
        let pod = node.run_pod("killed");
        let id = pod.start(&container("runs", &["/bin/sleep", "1003"]));
        assert_eq!(scopes(node), [format!("pod-{}", pod.id)]);
        let [shim] = node.shims().try_into().expect("one shim");
        shim.signal(Signal::SIGKILL);
        node.cri().exited(&id);
        pod.stop();
        pod.remove();
        until("the overlay is gone", || {
            scopes(node).is_empty().then_some(())
        });
    });
}
