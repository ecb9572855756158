//! Tests of pods below a real Kubernetes, with one cluster for all of them: `tests/kubernetes`.
//!
//! They run for each containerd, which is upgraded from one to the next, by turns with the one and the other
//! runtime class that the installer makes; with `--each`, for both classes below each containerd.
//!
//! A program, not a test of cargo's, which would start a cluster for none of its tests, and give each
//! a thread: a daemon ends with the thread that has started it.

mod controllers;
mod faults;
mod lifecycle;
mod network;
mod probes;
mod resources;
mod security;
mod streams;
mod volumes;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use reaper_tests::{
    config::INSTALLED,
    kubernetes::{Cluster, Space},
    suite::suites,
};

/// A test, which gets a namespace of the cluster, and its name.
type Test = (&'static str, fn(&Space<'_>));

/// Names functions as tests.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::Test] = &[$((stringify!($name), $name)),*];
    };
}
use tests;

fn main() -> ExitCode {
    let (options, wanted): (Vec<String>, Vec<String>) =
        env::args().skip(1).partition(|word| word.starts_with('-'));
    let each = options.iter().any(|option| option == "--each");
    let chosen: Vec<Test> = [
        lifecycle::TESTS,
        streams::TESTS,
        probes::TESTS,
        volumes::TESTS,
        security::TESTS,
        resources::TESTS,
        network::TESTS,
        controllers::TESTS,
        faults::TESTS,
    ]
    .concat()
    .into_iter()
    .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
    .collect();
    let start = Instant::now();
    let mut suites = suites().into_iter().enumerate();
    let (_, first) = suites.next().expect("a containerd to test with");
    let cluster = Cluster::start(first);
    println!("the cluster took {} s", start.elapsed().as_secs());
    let mut outcomes: Vec<(String, bool)> = Vec::new();
    let mut run_all = |turn: usize| {
        let classes = INSTALLED.into_iter().cycle().skip(turn);
        for class in classes.take(if each { INSTALLED.len() } else { 1 }) {
            let title = format!("{class}, containerd {}", cluster.node().version());
            println!("running {} tests of {title}", chosen.len());
            for (name, test) in &chosen {
                let passed = passes(&cluster, class, name, test);
                outcomes.push((format!("{name} ({title})"), passed));
            }
        }
    };
    run_all(0);
    let mut upgrades = Vec::new();
    for (turn, suite) in suites {
        let title = format!("pods_outlive_an_upgrade_of_containerd_to_that_of_{suite}");
        let passed = passes(&cluster, INSTALLED[turn % 2], "upgrade", &|space| {
            faults::pods_outlive_an_upgrade_of_containerd(space, suite.clone());
        });
        upgrades.push((title, passed));
        run_all(turn);
    }
    drop(cluster);
    outcomes.extend(upgrades);
    let failed = outcomes.iter().filter(|(_, passed)| !passed);
    let failures = failed.clone().count();
    for (name, _) in failed {
        println!("failed: {name}");
    }
    println!(
        "test result: {}. {} passed; {failures} failed; 0 ignored; 0 measured; 0 filtered out; finished in {} s",
        if failures == 0 { "ok" } else { "FAILED" },
        outcomes.len() - failures,
        start.elapsed().as_secs()
    );
    ExitCode::from(u8::from(failures > 0 || chosen.is_empty()))
}

/// Runs a test in a namespace of its own, whose pods are of a class, and sees that nothing of it is left on the
/// node.
fn passes(cluster: &Cluster, class: &'static str, name: &str, test: &dyn Fn(&Space<'_>)) -> bool {
    let start = Instant::now();
    let space = cluster.space(name, class);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        test(&space);
        space.remove();
        cluster.assert_nothing_left();
    }));
    let passed = outcome.is_ok();
    if !passed {
        cluster.show(&space.name);
        // Others shall not suffer from it.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            space.remove();
            cluster.assert_nothing_left();
        }));
        cluster.forgive();
    }
    let word = if passed { "ok" } else { "FAILED" };
    println!("test {name} ... {word} ({} s)", start.elapsed().as_secs());
    passed
}
