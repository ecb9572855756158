//! Every target on what its corpus holds: examples of what is read, and what fuzzing has found.

use std::{collections::BTreeSet, fs, path::Path};

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
