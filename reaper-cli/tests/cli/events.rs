//! `events`: what happens, as it happens.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Stdio},
};

use serde_json::Value;

use crate::rig::Rig;

/// Somebody who watches, and has begun to.
struct Watcher {
    program: Child,
    lines: BufReader<ChildStdout>,
}

impl Watcher {
    /// Begins to watch, and sees a container that was made meanwhile, so as to be sure of it.
    fn of(rig: &Rig, options: &[&str]) -> Self {
        let mut program = rig
            .command(&[&["events"], options].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap());
        let mut watcher = Self { program, lines };
        // The first that it sees may be any part of its life.
        loop {
            rig.ok(&["run", "--name", "first", "--", "true"]);
            if watcher.has_begun() {
                return watcher;
            }
        }
    }

    fn has_begun(&mut self) -> bool {
        use std::os::fd::AsFd;
        let mut wanted = [nix::poll::PollFd::new(
            self.lines.get_ref().as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut wanted, 100_u8).unwrap() > 0
    }

    /// What is told next of a container.
    fn next_of(&mut self, id: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "it has ended");
            if line.contains(id) {
                return line;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn live_and_die(rig: &Rig, mut told: impl FnMut(&str)) {
    let bundle = rig.shell("exec sleep 1000");
    rig.quietly(&["create", "--bundle", &bundle, "web"]);
    told("created");
    rig.quietly(&["start", "web"]);
    told("started");
    rig.ok(&["kill", "web", "KILL"]);
    // Nobody else has asked after it.
    told("stopped 137");
    rig.ok(&["delete", "web"]);
    told("deleted");
}

#[test]
fn events_report_container_lifecycle_as_it_happens() {
    for store in ["file", "sqlite"] {
        let rig = Rig::new();
        rig.choose_store(store);
        let mut watcher = Watcher::of(&rig, &[]);
        live_and_die(&rig, |what| {
            let line = watcher.next_of("web");
            let (_, rest) = line.split_once(' ').unwrap();
            assert_eq!(rest, format!("web {what}\n"), "{store}");
        });
    }
}

#[test]
fn events_json_prints_one_object_per_event() {
    let rig = Rig::new();
    let mut watcher = Watcher::of(&rig, &["--json"]);
    live_and_die(&rig, |what| {
        let event: Value = serde_json::from_str(&watcher.next_of("\"web\"")).unwrap();
        let (kind, code) = what.split_once(' ').unwrap_or((what, ""));
        assert_eq!(
            (&event["type"], &event["id"]),
            (&kind.into(), &"web".into())
        );
        let known = event
            .get("exit_code")
            .map_or_else(String::new, Value::to_string);
        assert_eq!(known, code);
        assert!(event["time"].is_string());
    });
}

#[test]
fn events_of_concurrent_containers_are_complete_and_ordered() {
    let rig = Rig::new();
    let mut watcher = Watcher::of(&rig, &[]);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let rig = &rig;
            scope.spawn(move || {
                let name = format!("many-{number}");
                rig.ok(&["run", "--keep", "--name", &name, "--", "true"]);
            });
        }
    });
    let mut told = std::collections::BTreeMap::<String, Vec<String>>::new();
    while told.len() < 8 || told.values().any(|words| words.len() < 3) {
        let line = watcher.next_of("many-");
        let mut words = line.split_whitespace().skip(1);
        let id = words.next().unwrap().to_owned();
        told.entry(id)
            .or_default()
            .push(words.next().unwrap().to_owned());
    }
    for (id, words) in told {
        assert_eq!(words, ["created", "started", "stopped"], "{id}");
        rig.ok(&["delete", &id]);
    }
}
