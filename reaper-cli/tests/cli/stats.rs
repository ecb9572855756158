//! `stats`: what containers use.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::rig::{Rig, shell};

#[test]
fn stats_show_what_running_containers_use() {
    let rig = Rig::new();
    let fields = json!({"linux": {"resources": {"memory": {"limit": 256 << 20}}}});
    let has_memory = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory.stat"]
        .iter()
        .any(|path| std::fs::exists(path).unwrap());
    let fields = if has_memory { fields } else { json!({}) };
    let busy = rig.bundle_with("busy", &shell("while :; do :; done"), &fields);
    rig.quietly(&["run", "--detach", "--bundle", &busy, "busy"]);
    rig.running("idle");
    rig.ok(&["run", "--keep", "--name", "ended", "--", "true"]);

    let once = rig.ok(&["stats", "--json", "--no-stream"]);
    let once: Vec<Value> = serde_json::from_str(&once).unwrap();
    let ids: Vec<_> = once.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["busy", "idle"]);
    let cpu = |one: &Value| one["cpuPercent"].as_f64().unwrap();
    assert!(cpu(&once[0]) > 5.0 && cpu(&once[1]) < 5.0, "{once:?}");
    assert!(once[0]["memoryUsage"].as_u64().unwrap() > 0);
    assert!(once[0]["pids"].as_u64().unwrap() >= 1);
    if has_memory {
        assert_eq!(once[0]["memoryLimit"], 256 << 20);
        assert!(once[1].get("memoryLimit").is_none());
    }

    let table = rig.ok(&["stats", "--no-stream", "--interval", "10ms", "busy"]);
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[0].starts_with("ID") && lines[0].contains("MEMORY / LIMIT"),
        "{table}"
    );
    assert!(lines[1].starts_with("busy") && lines.len() == 2, "{table}");
    if has_memory {
        assert!(lines[1].contains("/ 256 MiB"), "{table}");
    }
    let error = rig.fails(1, &["stats", "--no-stream", "ended"]);
    assert!(
        error.contains("measure") && error.contains("stopped"),
        "{error}"
    );
    let error = rig.fails(1, &["stats", "--no-stream", "nosuch"]);
    assert!(error.contains("nosuch"), "{error}");
    for id in ["busy", "idle", "ended"] {
        rig.ok(&["delete", "--force", id]);
    }
}

#[test]
fn stats_go_on_until_the_named_containers_have_ended() {
    let rig = Rig::new();
    rig.running("web");
    let mut program = rig
        .command(&["stats", "--json", "--interval", "20ms", "web"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next()?.unwrap();
        Some(serde_json::from_str::<Vec<Value>>(&line).unwrap())
    };
    let is_first = |line: Option<Vec<Value>>| line.unwrap()[0].get("cpuPercent").is_none();
    assert!(is_first(next()));
    assert!(!is_first(next()));
    rig.ok(&["delete", "--force", "web"]);
    while next().is_some() {}
    assert!(program.wait().unwrap().success());
}
