//! Tests of pods below a real Kubernetes, with one cluster for all of them: `tests/kubernetes`.
//!
//! A program, not a test of cargo's, which would start a cluster for none of its tests, and give each
//! a thread: a daemon ends with the thread that has started it.

mod controllers;
mod faults;
mod lifecycle;
mod probes;
mod security;
mod streams;
mod volumes;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use reaper_tests::kubernetes::{Cluster, Space};

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
    let wanted: Vec<String> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let chosen: Vec<Test> = [
        lifecycle::TESTS,
        streams::TESTS,
        probes::TESTS,
        volumes::TESTS,
        security::TESTS,
        controllers::TESTS,
        faults::TESTS,
    ]
    .concat()
    .into_iter()
    .filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str())))
    .collect();
    println!("running {} tests", chosen.len());
    let start = Instant::now();
    let cluster = Cluster::start();
    println!("the cluster took {} s", start.elapsed().as_secs());
    let failed: Vec<&str> = chosen
        .iter()
        .filter(|(name, test)| !passes(&cluster, name, *test))
        .map(|(name, _)| *name)
        .collect();
    drop(cluster);
    for name in &failed {
        println!("failed: {name}");
    }
    println!(
        "test result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {} s",
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
        failed.len(),
        start.elapsed().as_secs()
    );
    ExitCode::from(u8::from(!failed.is_empty() || chosen.is_empty()))
}

/// Runs a test in a namespace of its own, and sees that nothing of it is left on the node.
fn passes(cluster: &Cluster, name: &str, test: fn(&Space<'_>)) -> bool {
    let start = Instant::now();
    let space = cluster.space(name);
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
