//! Every example that needs no containerd, run, with its output checked. Those that need one are
//! run by `tests/tests/examples.rs`.

use std::{
    fs,
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
