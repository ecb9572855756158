//! Every example that needs no containerd, run, with its output checked. Those that need one are
//! run by `tests/tests/examples.rs`.

use std::{
    fs,
    io::Read as _,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
};

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_bundle_is_described() {
    let bundle = tempfile::tempdir().unwrap();
    let config = r#"{
        "process": {"args": ["/bin/sleep", "60"], "cwd": "/tmp", "user": {"uid": 7, "gid": 8}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "source": "/srv/data", "options": ["rbind", "ro"]}
        ],
        "annotations": {
            "io.kubernetes.cri.sandbox-namespace": "default",
            "io.kubernetes.cri.sandbox-name": "web"
        }
    }"#;
    fs::write(bundle.path().join("config.json"), config).unwrap();
    let path = bundle.path().to_str().unwrap();
    let output = run(env!("CARGO_BIN_EXE_parse-bundle"), &[path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        text(&output.stdout),
        "runs [\"/bin/sleep\", \"60\"] in /tmp\n\
         as user 7, group 8\n\
         sees /srv/data at /data\n\
         for the pod default/web\n"
    );

    let broken = r#"{"process": {"args": ["/bin/sleep", 60]}}"#;
    fs::write(bundle.path().join("config.json"), broken).unwrap();
    let output = run(env!("CARGO_BIN_EXE_parse-bundle"), &[path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        format!("{path}/config.json: process.args[1]: expected a string, found the number 60\n")
    );
}

#[test]
fn embedded_command_output_arrives_on_both_streams() {
    let script = "echo one; echo two >&2; echo three; exit 3";
    let output = run(env!("CARGO_BIN_EXE_embed"), &["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(text(&output.stdout), "one\nthree\nexit code 3\n");
    assert_eq!(text(&output.stderr), "two\n");
}

#[test]
fn an_embedded_command_that_does_not_exist_is_an_error() {
    let output = run(env!("CARGO_BIN_EXE_embed"), &["no-such-program"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "embed: exec no-such-program: executable file not found in $PATH\n"
    );
}

#[test]
fn a_private_tmp_is_empty_and_leaves_nothing() {
    let name = format!("reaper-example-{}", std::process::id());
    let script = format!("ls -A /tmp; echo hi >/tmp/{name}; cat /tmp/{name}; exit 4");
    let output = run(env!("CARGO_BIN_EXE_private-tmp"), &["sh", "-c", &script]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert_eq!(text(&output.stdout), "hi\n");
    assert!(!Path::new("/tmp").join(name).exists());
}

#[test]
fn records_are_in_the_one_file_while_the_command_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.json");
    let path = file.to_str().unwrap();
    let output = run(
        env!("CARGO_BIN_EXE_one-file-store"),
        &[path, "sh", "-c", &format!("cat {path}; exit 5")],
    );
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["in-a-file"]["version"], 1, "{seen}");
    assert_eq!(fs::read_to_string(file).unwrap(), "{}");
}

#[test]
fn what_runs_for_too_long_is_killed_and_what_does_not_is_left() {
    let program = env!("CARGO_BIN_EXE_time-limit");
    let output = run(program, &["0.1", "sleep", "1000"]);
    assert_eq!(output.status.code(), Some(137), "{output:?}");
    let output = run(program, &["1000", "sh", "-c", "echo in time; exit 6"]);
    assert_eq!(output.status.code(), Some(6), "{output:?}");
    assert_eq!(text(&output.stdout), "in time\n");
}

#[test]
fn both_outputs_come_to_the_collector() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let collector = UnixListener::bind(&socket).unwrap();
    let script = "echo one; echo two >&2; exit 7";
    let path = socket.to_str().unwrap();
    let output = run(env!("CARGO_BIN_EXE_collect"), &[path, "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    for expected in ["one\n", "two\n"] {
        let (mut connection, _) = collector.accept().unwrap();
        let mut said = String::new();
        connection.read_to_string(&mut said).unwrap();
        assert_eq!(said, expected);
    }
}
