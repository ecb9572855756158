//! What holds for every record, and for whatever is found in its place.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use proptest::{collection::btree_map, option, prelude::*, sample};
use reaper_spec::{ContainerId, Exit, ExitStatus, ProcessIdentity, Status, Timestamp};
use reaper_state::{Record, Revision, format};
use serde_json::{Value, json};

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (0..253_402_300_799_u64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| Timestamp::from(UNIX_EPOCH + Duration::new(seconds, nanos)))
}

fn process() -> impl Strategy<Value = ProcessIdentity> {
    (any::<u32>(), any::<u64>(), any::<String>()).prop_map(|(pid, start_time, boot_id)| {
        ProcessIdentity {
            pid,
            start_time,
            boot_id,
        }
    })
}

fn exit() -> impl Strategy<Value = Exit> {
    let status = prop_oneof![
        any::<u8>().prop_map(|code| ExitStatus::Exited { code }),
        (1..65, any::<bool>()).prop_map(|(signal, core)| ExitStatus::Signaled { signal, core }),
        any::<String>().prop_map(|reason| ExitStatus::Unknown { reason }),
    ];
    (status, timestamp()).prop_map(|(status, at)| Exit::new(status, at))
}

fn record() -> impl Strategy<Value = Record> {
    (
        "[A-Za-z0-9_][A-Za-z0-9_.+-]{2,30}",
        any::<String>(),
        sample::select(Status::ALL.to_vec()),
        option::of(process()),
        option::of(process()),
        timestamp(),
        option::of(timestamp()),
        option::of(exit()),
        btree_map(any::<String>(), any::<String>(), 0..4),
    )
        .prop_filter_map(
            "an id",
            |(id, bundle, status, process, monitor, created, started, exit, annotations)| {
                let mut record = Record::new(ContainerId::new(id).ok()?, bundle.into());
                record.status = status;
                record.process = process;
                record.monitor = monitor;
                record.created = created;
                record.started = started;
                record.exit = exit;
                record.annotations = annotations;
                Some(record)
            },
        )
}

/// A record with all that one may have.
fn whole() -> Value {
    let process = json!({"pid": 7, "start_time": 9, "boot_id": "b"});
    json!({
        "version": 1, "revision": "0".repeat(32), "id": "web", "bundle": "/b", "status": "stopped",
        "process": process, "monitor": process,
        "created": "2026-11-27T00:21:39.1Z", "started": "2026-11-27T00:21:40Z",
        "exit": {"how": "exited", "code": 3, "at": "2026-11-27T00:21:41Z"},
        "annotations": {"a": "b", "c/d": "e"},
    })
}

/// The places of a whole record that are read, as JSON pointers, and how an error names them. What is in
/// an exit is read together.
const PLACES: &[(&str, &str)] = &[
    ("/revision", "revision"),
    ("/id", "id"),
    ("/bundle", "bundle"),
    ("/status", "status"),
    ("/process", "process"),
    ("/process/pid", "process.pid"),
    ("/process/start_time", "process.start_time"),
    ("/monitor/boot_id", "monitor.boot_id"),
    ("/created", "created"),
    ("/started", "started"),
    ("/exit/how", "exit"),
    ("/exit/at", "exit"),
    ("/annotations", "annotations"),
    ("/annotations/a", "annotations.a"),
    ("/annotations/c~1d", "annotations.c/d"),
];

proptest! {
    #[test]
    fn record_round_trips(record in record(), revision in "[0-9a-f]{32}") {
        let revision: Revision = revision.parse().unwrap();
        let text = format::encode(&record, &revision).unwrap();
        let stored = format::decode(text.as_bytes()).unwrap();
        prop_assert_eq!(&stored.record, &record);
        prop_assert_eq!(&stored.revision, &revision);
        prop_assert_eq!(format::encode(&stored.record, &stored.revision).unwrap(), text);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(format::decode(&bytes).is_err());
    }

    #[test]
    fn every_part_of_a_record_is_refused(record in record(), length in any::<sample::Index>()) {
        let revision: Revision = "0".repeat(32).parse().unwrap();
        let text = format::encode(&record, &revision).unwrap();
        let text = text.trim_end().as_bytes();
        prop_assert!(format::decode(&text[..length.index(text.len())]).is_err());
    }

    #[test]
    fn wrong_value_is_named_by_its_place(
        (pointer, place) in sample::select(PLACES.to_vec()),
        wrong in sample::select(vec![json!([[]]), json!({"x": {}}), json!(-1.5), json!(false)]),
    ) {
        let mut document = whole();
        *document.pointer_mut(pointer).unwrap() = wrong;
        let refused = format::decode(document.to_string().as_bytes()).unwrap_err();
        let said = refused.to_string();
        prop_assert!(said.starts_with(place), "{}: {}", place, said);
    }
}

#[test]
fn the_whole_record_is_read_and_lacks_nothing() {
    let text = whole().to_string();
    let stored = format::decode(text.as_bytes()).unwrap();
    let written = format::encode(&stored.record, &stored.revision).unwrap();
    let written: BTreeMap<String, Value> = serde_json::from_str(&written).unwrap();
    for key in written.keys() {
        // For readers, taken from others.
        let is_derived = ["pid", "exit_code"].contains(&key.as_str());
        assert!(
            is_derived || whole().get(key).is_some(),
            "{key} is not tried"
        );
    }
}
