//! The times that the pages name are those of the code.

use std::fs;

use crate::pages::root;

/// A sentence of a page, with `{}` in the place of the number, and the file and the constant that have it.
type Row = (&'static str, &'static str, &'static str);

const TASK_API: [Row; 8] = [
    (
        "Every method but `Wait` answers within {} seconds",
        "reaper-shim/src/timeout.rs",
        "REQUEST_LIMIT",
    ),
    (
        "a creation that takes too long ({} s) is undone",
        "reaper-shim/src/timeout.rs",
        "STEP_LIMIT",
    ),
    (
        "It waits at most {} second for the monitor",
        "reaper-shim/src/service/state.rs",
        "OBSERVE_LIMIT",
    ),
    (
        "answers with an error {} times is dropped",
        "reaper-shim/src/publisher.rs",
        "REFUSALS",
    ),
    (
        "it waits {} s for the last events",
        "reaper-shim/src/bootstrap/daemon.rs",
        "DRAIN_LIMIT",
    ),
    (
        "The shim waits {} s for them",
        "reaper-shim/src/container.rs",
        "EXECS_LIMIT",
    ),
    (
        "no client connects to within {} s ends",
        "reaper-shim/src/bootstrap/daemon.rs",
        "CONNECT_LIMIT",
    ),
    (
        "takes at most {} seconds",
        "reaper-shim/src/bootstrap/delete.rs",
        "LIMIT",
    ),
];

const DECISIONS: [Row; 7] = [
    (
        "could not be delivered: {} ms up to",
        "reaper-shim/src/publisher.rs",
        "FIRST_PAUSE",
    ),
    (
        "ms up to {} s, or the next request",
        "reaper-shim/src/publisher.rs",
        "LONGEST_PAUSE",
    ),
    (
        "to accept clients again, {} ms after",
        "reaper-shim/src/bootstrap/connections.rs",
        "PAUSE",
    ),
    (
        "a lock on a record, for {} seconds",
        "reaper-state/src/lock.rs",
        "LIMIT",
    ),
    (
        "a lock of the overlays, for {} seconds",
        "reaper-overlay/src/linux/flock.rs",
        "LIMIT",
    ),
    (
        "It accepts clients again {} ms after",
        "reaper-exec/src/monitor/serve/event_loop.rs",
        "ACCEPT_PAUSE",
    ),
    (
        "looked at every {} ms until then",
        "reaper-exec/src/monitor/operations/freeze.rs",
        "LOOK_AGAIN",
    ),
];

const ARCHITECTURE: [Row; 7] = [
    (
        "The deadline of stopping is {} s",
        "reaper-exec/src/monitor/operations/stop.rs",
        "KILL_TIMEOUT",
    ),
    (
        "A client waits {} s for a state, figures or pids",
        "reaper-exec/src/host/silence.rs",
        "QUERY",
    ),
    (
        "or pids, {} s for SIGKILL",
        "reaper-exec/src/host/silence.rs",
        "KILL",
    ),
    (
        "and {} s for anything else",
        "reaper-exec/src/host/silence.rs",
        "ACTION",
    ),
    (
        "the runtime's own `kill` has {} s",
        "reaper-exec/src/monitor/oci_runtime/cleanup.rs",
        "KILL_TIMEOUT",
    ),
    (
        "and its `delete` {} s",
        "reaper-exec/src/monitor/oci_runtime/cleanup.rs",
        "REMOVAL_TIMEOUT",
    ),
    (
        "no process reads from is an error after {} s",
        "reaper-cli/src/pid_file.rs",
        "READER",
    ),
];

#[test]
fn times_in_the_pages_are_those_of_the_code() {
    let mut wrong = Vec::new();
    for (page, rows) in [
        ("docs/task-api.md", &TASK_API[..]),
        ("docs/decisions.md", &DECISIONS),
        ("docs/architecture.md", &ARCHITECTURE),
    ] {
        let text = fs::read_to_string(root().join(page)).expect("read a page");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (sentence, file, constant) in rows {
            let source = fs::read_to_string(root().join(file)).expect("read a source file");
            let number = number(&source, constant)
                .unwrap_or_else(|| panic!("{file} has no {constant} with a number"));
            if !spellings(&number).any(|number| text.contains(&sentence.replace("{}", &number))) {
                wrong.push(format!(
                    "{page}: {sentence:?}: {constant} in {file} is {number}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The number that a constant is: of its unit, where it is a time.
fn number(source: &str, constant: &str) -> Option<String> {
    let named = format!("const {constant}: ");
    let line = source.lines().find(|line| line.contains(&named))?;
    let value = line.split_once(" = ")?.1;
    Some(value.chars().filter(char::is_ascii_digit).collect())
}

/// As digits, and as a word where that is short.
fn spellings(number: &str) -> impl Iterator<Item = String> {
    let words = [
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    ];
    let word = number.parse::<usize>().ok();
    let word = word.and_then(|number| words.get(number.checked_sub(1)?));
    [number.to_owned()]
        .into_iter()
        .chain(word.map(|&word| word.to_owned()))
}
