//! Captures `config.json` files as the programs that Reaper serves write them, for the corpus of
//! `reaper-spec`, as root, after `tests/run build`:
//!
//! ```sh
//! export REAPER_SUITES="bookworm trixie sid"
//! tests/provision
//! cargo build -p reaper-tests --bin capture
//! unshare --mount --propagation shared target/*/debug/capture reaper-spec/tests/corpus
//! ```
//!
//! (Volumes with mount propagation ask for a shared tree, as nodes with systemd have.)

mod clean;
mod pods;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use reaper_tests::{
    Node, Options,
    ctr::Output,
    podman::with_podman,
    runtime::until,
    suite::{Suite, suites},
};

fn main() {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: capture FOLDER");
        std::process::exit(2);
    };
    for suite in suites() {
        containerd(suite, &folder);
    }
    podman(&folder);
    runc(&folder);
}

/// What a containerd writes for `ctr run` and for pods.
fn containerd(suite: Suite, folder: &Path) {
    let node = Node::start(
        suite,
        Options::default()
            .overlay()
            .env("REAPER_ANNOTATIONS_ALLOW", "overlay-scope"),
    );
    let name = |kind: &str| format!("containerd-{}-{kind}", node.version());
    let options = ["--detach", "--env", "GREETING=hello"];
    let id = node.name("ctr");
    node.ctr_run_with("ctr", &options, &["sleep", "1000"])
        .assert_success();
    let config = node.bundles(node.marker()).join(&id).join("config.json");
    keep(&node, &config, folder, &name("ctr"));
    node.ctr(&["task", "delete", "--force", &id])
        .assert_success();
    node.ctr(&["container", "delete", &id]).assert_success();

    let pod = node.run_pod_of(pods::pod(&node)).expect("run a pod");
    let config = |id: &str| node.bundles("k8s.io").join(id).join("config.json");
    keep(&node, &config(&pod.id), folder, &name("cri-sandbox"));
    for (kind, container) in pods::containers(&node) {
        let id = pod.start(&container);
        keep(&node, &config(&id), folder, &name(&format!("cri-{kind}")));
        node.cri().stop(&id, 0).expect("stop a container");
    }
    pod.stop();
    pod.remove();
}

/// What podman writes.
fn podman(folder: &Path) {
    with_podman(|podman| {
        let node = podman.node();
        for (kind, options) in [
            ("plain", &[][..]),
            (
                "options",
                &[
                    "--user=33:33",
                    "--volume=/run:/data:ro,rslave",
                    "--workdir=/tmp",
                ][..],
            ),
        ] {
            let mut options = options.to_vec();
            options.extend(["--detach", "--name", kind]);
            podman.run(&options, &["sleep", "1000"]).assert_success();
            let path = podman.call(&["inspect", "--format={{.OCIConfigPath}}", kind]);
            let path = path.assert_success();
            keep(
                node,
                Path::new(path.trim()),
                folder,
                &format!("podman-{kind}"),
            );
            podman
                .call(&["rm", "--force", "--time=0", kind])
                .assert_success();
        }
    });
}

/// What `runc spec` writes for people to start with.
fn runc(folder: &Path) {
    let node = Node::start(suites().swap_remove(0), Options::default());
    for (kind, options) in [("spec", &[][..]), ("spec-rootless", &["--rootless"][..])] {
        let work = node.work().join(kind);
        fs::create_dir(&work).expect("make a folder");
        Output::of(
            Command::new("runc")
                .arg("spec")
                .args(options)
                .arg("--bundle")
                .arg(&work),
        )
        .assert_success();
        keep(
            &node,
            &work.join("config.json"),
            folder,
            &format!("runc-{kind}"),
        );
    }
}

/// Copies a file into the corpus, without what is of this machine alone.
fn keep(node: &Node, config: &Path, folder: &Path, name: &str) {
    let text = until("the bundle is written", || fs::read_to_string(config).ok());
    let path = folder.join(format!("{name}.json"));
    fs::write(&path, clean::of(&text, node)).expect("write into the corpus");
    println!("{}", path.display());
}
