//! The action `start`: one shim for a pod, whoever comes first.

use std::{
    fs,
    os::{
        fd::AsFd,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::Path,
    process::{Command, Output, Stdio},
};

use containerd_shim_protos::{
    bootstrap_api::{BootstrapParams, BootstrapResult},
    protobuf::Message,
    types::introspection::RuntimeInfo,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use reaper_exec::procfs;

use crate::harness::{Node, Shim};

#[tokio::test]
async fn start_prints_the_address_of_a_shim_that_serves() {
    let node = Node::new();
    let bundle = node.bundle("pod", "pod");
    let address = node.start("pod");
    assert_eq!(fs::read_to_string(bundle.join("address")).unwrap(), address);
    let shim = Shim::connect(&address).await;
    assert!(shim.socket().starts_with(node.root()), "{address}");
    let folder = fs::metadata(shim.socket().parent().unwrap()).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);

    shim.create("pod", &bundle).await.unwrap();
    shim.remove("pod").await;
    shim.shutdown().await;
    assert!(!shim.socket().exists(), "removed before the answer");
    shim.ended();
}

#[tokio::test]
async fn containers_of_a_pod_share_a_shim_and_others_have_their_own() {
    let node = Node::new();
    for (id, pod) in [("pod", "pod"), ("app", "pod"), ("other", "other")] {
        node.bundle(id, pod);
    }
    let (pod, app, other) = (node.start("pod"), node.start("app"), node.start("other"));
    assert_eq!(pod, app);
    assert_ne!(pod, other);
    assert_eq!(node.daemons().len(), 2);
    let written = fs::read_to_string(node.path().join("bundles/app/address")).unwrap();
    assert_eq!(written, app);
}

#[test]
fn concurrent_starts_of_one_pod_create_one_shim() {
    let node = Node::new();
    let ids: Vec<String> = (0..12).map(|number| format!("app-{number}")).collect();
    let starts: Vec<_> = ids
        .iter()
        .map(|id| {
            node.bundle(id, "pod");
            node.command(id, &["start"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut addresses: Vec<_> = starts
        .into_iter()
        .map(|start| start.wait_with_output().unwrap().stdout)
        .collect();
    addresses.dedup();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
    assert!(!addresses[0].is_empty());
    assert_eq!(node.daemons().len(), 1);
}

/// The daemons that a node has left, once each had the time to end: to end is what they were asked.
fn left(node: &Node) -> Vec<u32> {
    for pid in node.daemons() {
        // One that has gone since is not there to be waited for.
        let Ok(identity) = procfs::identify(pid) else {
            continue;
        };
        if let Ok(process) = procfs::open_pidfd(&identity) {
            let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
            poll(&mut ended, PollTimeout::from(20_000u16)).unwrap();
        }
    }
    node.daemons()
}

#[test]
fn a_start_that_fails_leaves_neither_a_daemon_nor_a_socket() {
    let node = Node::new();
    let bundle = node.bundle("pod", "pod");
    fs::create_dir(bundle.join("address")).unwrap();
    let output = node.command("pod", &["start"]).output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("address"),
        "{output:?}"
    );
    assert_eq!(left(&node), [0; 0]);

    fs::remove_dir(bundle.join("address")).unwrap();
    // A pipe without a reader takes no answer.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut start = node.command("pod", &["start"]);
    let output = start
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("standard output"),
        "{output:?}"
    );
    assert_eq!(left(&node), [0; 0]);
    let sockets = fs::read_dir(node.root().join("ns/.s")).unwrap();
    assert_eq!(sockets.count(), 0);
}

/// The shim with `closing` done to its standard streams by a shell.
fn with_closed(node: &Node, closing: &str, args: &[&str]) -> Output {
    let shim = node.command("pod", args);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec \"$0\" \"$@\" {closing}")])
        .arg(shim.get_program())
        .args(shim.get_args())
        .envs(
            shim.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(shim.get_current_dir().unwrap());
    shell.output().unwrap()
}

#[tokio::test]
async fn a_shim_whose_answer_cannot_be_heard_fails_and_leaves_nothing() {
    let node = Node::new();
    let bundle = node.bundle("pod", "pod");
    for args in [&["start"][..], &["delete"], &["-v"], &["-info"]] {
        let output = with_closed(&node, ">&-", args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("standard output"), "{args:?}: {error}");
    }
    assert_eq!(left(&node), [0; 0]);
    let sockets = fs::read_dir(node.root().join("ns/.s")).unwrap();
    assert_eq!(sockets.count(), 0);
    assert!(!bundle.join("address").exists());

    // Input and errors are not needed, and nothing else gets their numbers.
    let output = with_closed(&node, "<&- 2>&-", &["start"]);
    assert!(output.status.success(), "{output:?}");
    let shim = Shim::connect(&String::from_utf8(output.stdout).unwrap()).await;
    for number in 0..3 {
        let stream = fs::read_link(format!("/proc/{}/fd/{number}", shim.pid)).unwrap();
        assert_eq!(stream, Path::new("/dev/null"), "{number}");
    }
    shim.create("pod", &bundle).await.unwrap();
    shim.remove("pod").await;
    shim.shutdown().await;
    shim.ended();
}

#[tokio::test]
async fn the_socket_of_a_killed_shim_is_replaced() {
    let node = Node::new();
    let first = node.pod("pod").await;
    first.signal(Signal::SIGKILL);
    first.ended();
    assert!(first.socket().exists());
    let second = Shim::connect(&node.start("pod")).await;
    assert_eq!(second.address, first.address);
    assert_ne!(second.pid, first.pid);
}

#[tokio::test]
async fn a_state_root_of_any_length_has_a_socket() {
    for length in [30, 60, 150] {
        let node = Node::with_root(&"r".repeat(length));
        node.bundle("pod", "pod");
        let shim = Shim::connect(&node.start("pod")).await;
        assert!(shim.socket().as_os_str().len() <= 107);
        shim.shutdown().await;
        shim.ended();
        assert!(!shim.socket().exists());
    }
    // Where containerd's own shims have their sockets; ours to remove only if it is ours alone.
    for folder in ["/run/containerd/s", "/run/containerd"] {
        let _ = fs::remove_dir(folder);
    }
}

#[tokio::test]
async fn start_answers_bootstrap_parameters_with_message() {
    let node = Node::new();
    node.bundle("pod", "pod");
    let sockets = node.path().join("s");
    let params = BootstrapParams {
        instance_id: "pod".into(),
        namespace: "test".into(),
        containerd_grpc_address: "/run/other".into(),
        containerd_ttrpc_address: "/run/other.ttrpc".into(),
        socket_dir: Some(sockets.to_str().unwrap().into()),
        ..Default::default()
    };
    let output = node.start_with_input("pod", &params.write_to_bytes().unwrap());
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let result = BootstrapResult::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
    let shim = Shim::connect(&result.address).await;
    assert!(shim.socket().starts_with(&sockets));
}

#[test]
fn a_daemon_that_cannot_start_says_why_and_leaves_nothing() {
    let node = Node::new().env("REAPER_SHIM_LOG", "/does/not/exist");
    node.bundle("pod", "pod");
    let output = node.command("pod", &["start"]).output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("/does/not/exist")
    );
    assert!(output.stdout.is_empty());
    let sockets = fs::read_dir(node.root().join("ns/.s")).unwrap();
    assert_eq!(sockets.count(), 0);
    assert!(!node.path().join("bundles/pod/address").exists());
}

#[test]
fn a_wrong_configuration_is_named() {
    let node = Node::new().env("REAPER_OVERLAY_ENABLED", "perhaps");
    node.bundle("pod", "pod");
    let output = node.command("pod", &["start"]).output().unwrap();
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("REAPER_OVERLAY_ENABLED")
    );
}

#[test]
fn busy_listener_is_not_replaced_as_dead() {
    let node = Node::new();
    node.bundle("pod", "pod");
    let address = node.start("pod");
    let socket = Path::new(address.strip_prefix("unix://").unwrap()).to_owned();
    fs::remove_file(&socket).unwrap();
    // It accepts nobody.
    let busy = UnixListener::bind(&socket).unwrap();
    assert_eq!(node.start("pod"), address);
    assert!(socket.exists());
    drop(busy);
}

#[test]
fn shim_prints_version_and_runtime_info() {
    let node = Node::new();
    node.bundle("pod", "pod");
    let version = node.command("pod", &["-v"]).output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let info = node.command("pod", &["-info"]).output().unwrap();
    let info = RuntimeInfo::parse_from_bytes(&info.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.reaper.v2");
    assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
}
