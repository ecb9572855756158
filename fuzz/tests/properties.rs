//! Every target on what becomes of its corpus by a few changes: inputs that are nearly right reach
//! further than those that are made from nothing. A case that fails becomes a file of the corpus,
//! which `corpus` tries from then on.

use std::{fs, path::Path, sync::LazyLock};

use proptest::{collection::vec, prelude::*, sample::Index};
use reaper_fuzz::{TARGETS, target};
use serde_json::{Value, json};

/// The inputs of all targets, each with its target's name.
static CORPUS: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut inputs = Vec::new();
    for &(name, _) in TARGETS {
        for input in fs::read_dir(folder.join(name)).expect("the corpus of a target") {
            let input = fs::read(input.expect("an input").path()).expect("read an input");
            inputs.push((name, input));
        }
    }
    inputs.sort();
    inputs
});

/// A change of an input: of a value in it where it is JSON, of its bytes otherwise.
#[derive(Debug, Clone)]
enum Change {
    /// Another value at a place.
    Value(Index, Value),
    /// The value of one place at another.
    Copy(Index, Index),
    /// A key or an item less.
    Remove(Index),
    /// Other bytes from a place on.
    Bytes(Index, Vec<u8>),
    /// Without what follows a place.
    Cut(Index),
    /// A part of it twice.
    Repeat(Index, Index),
}

fn alien() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[/.:a-z0-9 =\\[\\]\\-]{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!(["", null])),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    let bytes = prop_oneof![
        vec(any::<u8>(), 1..6),
        "[ -~\n]{1,6}".prop_map(String::into_bytes)
    ];
    prop_oneof![
        4 => (place(), alien()).prop_map(|(at, value)| Change::Value(at, value)),
        2 => (place(), place()).prop_map(|(from, to)| Change::Copy(from, to)),
        2 => place().prop_map(Change::Remove),
        2 => (place(), bytes).prop_map(|(at, bytes)| Change::Bytes(at, bytes)),
        1 => place().prop_map(Change::Cut),
        1 => (place(), place()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

/// The places of a document, as JSON pointers.
fn places(value: &Value, pointer: &str, found: &mut Vec<String>) {
    found.push(pointer.to_owned());
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{pointer}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn remove(document: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return;
    };
    match document.pointer_mut(parent) {
        Some(Value::Object(members)) => {
            members.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        Some(Value::Array(items)) => {
            items.remove(key.parse().expect("an index"));
        }
        _ => {}
    }
}

fn change_document(document: &mut Value, change: &Change) {
    let mut found = Vec::new();
    places(document, "", &mut found);
    let at = |place: &Index| place.get(&found).as_str();
    match change {
        Change::Value(place, value) => {
            *document.pointer_mut(at(place)).expect("a place") = value.clone();
        }
        Change::Copy(from, to) => {
            let value = document.pointer(at(from)).expect("a place").clone();
            *document.pointer_mut(at(to)).expect("a place") = value;
        }
        Change::Remove(place) => remove(document, at(place)),
        Change::Bytes(..) | Change::Cut(_) | Change::Repeat(..) => {}
    }
}

fn change_bytes(input: &mut Vec<u8>, change: &Change) {
    let length = input.len();
    let at = |place: &Index| place.index(length + 1);
    match change {
        Change::Bytes(place, bytes) => {
            let end = length.min(at(place) + bytes.len());
            input.splice(at(place)..end, bytes.iter().copied());
        }
        Change::Cut(place) => input.truncate(at(place)),
        Change::Repeat(from, to) => {
            let (first, last) = (at(from).min(at(to)), at(from).max(at(to)));
            input.extend_from_within(first..last);
        }
        Change::Value(..) | Change::Copy(..) | Change::Remove(_) => {}
    }
}

fn changed(input: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut input = input.to_owned();
    if let Ok(mut document) = serde_json::from_slice::<Value>(&input) {
        changes
            .iter()
            .for_each(|change| change_document(&mut document, change));
        input = document.to_string().into_bytes();
    }
    changes
        .iter()
        .for_each(|change| change_bytes(&mut input, change));
    input
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn each_target_keeps_its_promises_near_its_corpus(
        which in any::<Index>(),
        changes in vec(change(), 1..5),
    ) {
        let (name, input) = which.get(&CORPUS);
        let (_, run) = target(name).expect("a target");
        run(&changed(input, &changes));
    }
}
