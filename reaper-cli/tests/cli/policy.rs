//! What the node's admin allows, and what is said of the configuration.

use std::fs;

use serde_json::{Value, json};

use crate::rig::*;

/// A configuration with these rules, in line 8 and below.
fn with_policy(rules: &str) -> Rig {
    let rig = Rig::new();
    rig.configure("", &format!("\n[policy]\n{rules}\n"));
    rig
}

fn line_of(rig: &Rig, rule: &str) -> usize {
    let text = fs::read_to_string(rig.path("config.toml")).unwrap();
    text.lines()
        .position(|line| line.starts_with(rule))
        .unwrap()
        + 1
}

fn refusal(rig: &Rig, key: &str, found: &str) -> String {
    let config = rig.path("config.toml");
    let line = line_of(rig, key);
    format!(
        "reaper-runtime: policy.{key} ({}, line {line}) does not allow {found}\n",
        config.display()
    )
}

#[test]
fn container_that_the_policy_does_not_allow_is_refused_with_rule_and_line() {
    let rig = with_policy("users = [65534]\n");
    let process = |uid: u32| {
        json!({
            "args": ["/bin/sh", "-c", "id -u"], "cwd": "/", "user": { "uid": uid, "gid": 0 },
        })
    };
    let (root, other) = (
        rig.bundle("by-root", &process(0)),
        rig.bundle("by-other", &process(65534)),
    );
    let refused = refusal(&rig, "users", "uid 0");
    assert_eq!(rig.fails(1, &["run", "--bundle", &root, "c"]), refused);
    assert_eq!(rig.fails(1, &["run", "--", "true"]), refused);
    assert_eq!(rig.ok(&["list", "--quiet"]), "", "nothing was made");
    assert_eq!(rig.ok(&["run", "--bundle", &other, "c"]), "65534\n");
    assert_eq!(
        rig.ok(&["run", "--user", "65534", "--", "id", "-u"]),
        "65534\n"
    );
}

#[test]
fn exec_that_the_policy_does_not_allow_is_refused() {
    let rig = with_policy("users = [65534]\n");
    rig.quietly(&[
        "run", "--detach", "--user", "65534", "--name", "c", "--", "sleep", "1000",
    ]);
    let refused = refusal(&rig, "users", "uid 0");
    assert_eq!(rig.fails(255, &["exec", "--user", "0", "c", "id"]), refused);
    assert_eq!(rig.ok(&["exec", "c", "id", "-u"]), "65534\n");
    rig.ok(&["delete", "--force", "c"]);
}

#[test]
fn command_gets_the_capabilities_that_the_policy_allows() {
    let rig = with_policy("capabilities = [\"CAP_CHOWN\"]\n");
    let show = "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status";
    let seen = rig.ok(&["run", "--", "sh", "-c", show]);
    let sets: Vec<_> = seen
        .lines()
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(sets, ["0000000000000001"; 3]);
    let bundle = rig.bundle("bare", &json!({ "args": ["true"], "cwd": "/" }));
    let found = "a process whose spec names no capabilities, and which so has all";
    let refused = refusal(&rig, "capabilities", found);
    assert_eq!(rig.fails(1, &["run", "--bundle", &bundle, "c"]), refused);
}

#[test]
fn wrong_policy_refuses_every_start() {
    let rig = with_policy("users = [\"root\"]\n");
    let said = rig.fails(1, &["run", "--", "true"]);
    assert!(said.contains("policy.users: expected ids"), "{said}");
    assert!(said.contains("found \"root\""), "{said}");
}

#[test]
fn config_check_names_file_line_and_key_of_a_mistake() {
    let rig = with_policy("users = [1000]\n");
    let said = rig.ok(&["config", "check"]);
    assert!(
        said.starts_with("nothing is wrong with the 3 settings"),
        "{said}"
    );
    let other = rig.path("other.toml");
    let path = other.to_str().unwrap();
    for (text, words) in [
        (
            "\ndns = \"spec\"\nimage = \"none\"\n",
            "image: expected ignore, beneath or at, found \"none\" (line 3)",
        ),
        (
            "[overlay]\n\nscop = \"pod\"\n",
            "overlay.scop: unknown key, did you mean overlay.scope? (line 3)",
        ),
        (
            "[policy]\n\ncapabilities = [\n  \"CAP_CHOWN\",\n  \"CAP_CHOWM\",\n]\n",
            "policy.capabilities: expected capabilities as in capabilities(7), such as \"CAP_NET_ADMIN\", found \
             \"CAP_CHOWM\" (line 3)",
        ),
        (
            "[policy]\ncontainer = 3\n",
            "policy.container: unknown key, did you mean policy.containers? (line 2)",
        ),
        ("dns = \"spec\"\ndns", "not valid TOML: line 2:"),
    ] {
        fs::write(&other, text).unwrap();
        let said = rig.fails(1, &["config", "check", path]);
        assert!(said.contains(&format!("{path}: {words}")), "{said}");
    }
}

#[test]
fn config_show_lists_what_is_set_and_where() {
    let rig = with_policy("users = [1000, \"2000-2999\"]\n");
    let mut command = rig.command(&["config", "show", "--format", "json"]);
    command.env("REAPER_IMAGE", "at");
    let output = command.output().unwrap();
    let settings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let config = rig.path("config.toml");
    let find = |key: &str| {
        let all = settings.as_array().unwrap();
        all.iter()
            .find(|setting| setting["key"] == key)
            .unwrap()
            .clone()
    };
    let line = line_of(&rig, "users");
    let expected = json!({
        "key": "policy.users", "value": "[1000,\"2000-2999\"]", "file": config, "line": line,
        "variable": null,
    });
    assert_eq!(find("policy.users"), expected);
    let expected = json!({
        "key": "image", "value": "at", "file": null, "line": null, "variable": "REAPER_IMAGE",
    });
    assert_eq!(find("image"), expected);
    let table = rig.ok(&["config", "show"]);
    let row = table
        .lines()
        .find(|row| row.starts_with("overlay.enabled"))
        .unwrap();
    assert!(
        row.contains("false") && row.ends_with("config.toml, line 2"),
        "{row}"
    );
}

#[test]
fn mount_whose_source_is_elsewhere_when_it_is_opened_is_refused() {
    let rig = Rig::new();
    let data = rig.path("data");
    fs::create_dir(&data).unwrap();
    let rules = format!("\n[policy]\nhost_paths = [\"{}\"]\n", data.display());
    rig.configure("", &rules);
    let bundle = rig.bundle("moves", &json!({ "args": ["ls", "/mnt"], "cwd": "/" }));
    let config = format!("{bundle}/config.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    // In this program it is the allowed folder, and in the monitor, which mounts it, the root.
    document["mounts"] = json!([{
        "destination": "/mnt", "type": "bind", "source": "/proc/self/cwd", "options": ["bind", "ro"],
    }]);
    fs::write(config, document.to_string()).unwrap();
    let mut command = rig.command(&["run", "--bundle", &bundle, "c"]);
    let output = command.current_dir(&data).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(said.contains("policy.host_paths ("), "{said}");
    assert!(
        said.contains("does not allow a mount of /proc/self/cwd, which is /\n"),
        "{said}"
    );
    assert_eq!(rig.ok(&["list", "--quiet"]), "", "nothing was made");
}

#[test]
fn containers_do_not_exceed_their_number_whoever_creates_them_at_once() {
    let rig = with_policy("containers = 2\n");
    let create = |name: &str| {
        let mut command = rig.command(&["run", "--detach", "--name", name, "--", "sleep", "1000"]);
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let started = ["a", "b", "c", "d"].map(create);
    let ended: Vec<_> = started
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    let refused = refusal(&rig, "containers", "another container: 2 have not stopped");
    let failures: Vec<_> = ended
        .iter()
        .filter(|output| !output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stderr))
        .collect();
    assert_eq!(failures, [refused.as_str(); 2]);
    // One that has ended makes room, also before anything has asked for its end.
    let names = rig.ok(&["list", "--quiet"]);
    let one = names.split_whitespace().next().unwrap();
    rig.ok(&["kill", one, "KILL"]);
    rig.ok(&["wait", one]);
    rig.ok(&["run", "--detach", "--name", "e", "--", "sleep", "1000"]);
    assert_eq!(rig.fails(1, &["run", "--", "true"]), refused);
    for name in rig.ok(&["list", "--quiet"]).split_whitespace() {
        rig.ok(&["delete", "--force", name]);
    }
}

#[test]
fn a_bundle_that_calls_itself_a_sandbox_is_counted() {
    let rig = with_policy("containers = 1\n");
    let annotations = json!({
        "io.kubernetes.cri.container-type": "sandbox",
        "reaper.engine/deletion": "",
    });
    let fields = json!({ "annotations": annotations });
    let bundle = |id: &str| rig.bundle_with(id, &shell("exec sleep 1000"), &fields);
    let (first, second) = (bundle("a"), bundle("b"));
    rig.quietly(&["create", "--bundle", &first, "a"]);
    let refused = refusal(&rig, "containers", "another container: 1 have not stopped");
    assert_eq!(rig.fails(1, &["create", "--bundle", &second, "b"]), refused);
    let state = rig.ok(&["state", "a"]);
    assert!(state.contains("container-type"), "{state}");
    assert!(!state.contains("reaper.engine/"), "{state}");
    rig.ok(&["delete", "--force", "a"]);
}
