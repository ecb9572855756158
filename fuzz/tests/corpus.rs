//! Every target on what its corpus holds: examples of what is read, and what fuzzing has found.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use reaper_fuzz::TARGETS;

#[test]
fn each_target_keeps_its_promises_for_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, run) in TARGETS {
        let inputs =
            fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut count = 0;
        for input in inputs {
            let input = input.expect("an input").path();
            run(&fs::read(&input).expect("read an input"));
            count += 1;
        }
        assert!(count > 0, "{name} has no example");
    }
}

#[test]
fn each_folder_of_the_corpus_is_of_a_target_and_targets_are_in_order() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert!(names.is_sorted(), "{names:?}");
    let folders: BTreeSet<_> = fs::read_dir(corpus)
        .expect("list the corpus")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    assert_eq!(folders, names.into_iter().collect());
}

/// Whether a record can be read.
type Reads = fn(&[u8]) -> bool;

/// The records of the version that `tests/earlier` builds, which programs of this version find in a root
/// that both use.
#[test]
fn records_of_an_earlier_version_are_read() {
    let kinds: [(&str, Reads); 3] = [
        ("monitor-record", reaper_exec::fuzzing::record),
        ("overlay-record", reaper_overlay::fuzzing::record),
        ("state-record", |json| {
            reaper_state::format::decode(json).is_ok()
        }),
    ];
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (kind, is_read) in kinds {
        let records = fs::read_dir(corpus.join(kind)).expect("records");
        let records = records.map(|record| record.expect("a record").path());
        let is_earlier = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("earlier-")
        };
        let records: Vec<PathBuf> = records.filter(is_earlier).collect();
        assert!(records.len() > 1, "{kind}");
        for record in records {
            let json = fs::read(&record).expect("read a record");
            assert!(is_read(&json), "{}", record.display());
        }
    }
}
