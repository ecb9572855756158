//! Whole OCI documents: whatever else they hold, what is read is read, and what is broken is named.

use std::{collections::HashSet, path::Path};

use proptest::{prelude::*, sample::Index};
use reaper_spec::ContainerSpec;
use serde_json::{Map, Value, json};

fn word() -> impl Strategy<Value = Value> {
    "[^\0]{0,8}".prop_map(Value::from)
}

fn path() -> impl Strategy<Value = Value> {
    "/[a-zA-Z0-9_.äß -]{0,8}(/[a-z]{1,4}){0,2}".prop_map(Value::from)
}

fn number() -> impl Strategy<Value = Value> {
    (0..u32::MAX).prop_map(Value::from)
}

/// Zero to three values of a kind.
fn some<S: Strategy<Value = Value> + 'static>(one: S) -> BoxedStrategy<Value> {
    prop::collection::vec(one, 0..4)
        .prop_map(Value::from)
        .boxed()
}

/// The values without those of a type that an earlier one has.
fn once_each(mut list: Value) -> Value {
    let mut seen = HashSet::new();
    let values = list.as_array_mut().into_iter();
    values.for_each(|all| all.retain(|one| seen.insert(one["type"].to_string())));
    list
}

fn one_of(words: &'static [&'static str]) -> BoxedStrategy<Value> {
    prop::sample::select(words).prop_map(Value::from).boxed()
}

/// An object with these members.
fn object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let (keys, values): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    values
        .prop_map(move |values| {
            let keys = keys.iter().map(|&key| key.to_owned());
            Value::Object(keys.zip(values).collect())
        })
        .boxed()
}

fn texts() -> BoxedStrategy<Value> {
    prop::collection::btree_map("[a-z./-]{1,8}", word(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
        .boxed()
}

fn process() -> BoxedStrategy<Value> {
    let variable = "[A-Z_]{1,6}=[^\0]{0,6}".prop_map(Value::from);
    let limits = prop::sample::subsequence(vec!["RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_AS"], 0..3)
        .prop_flat_map(|kinds| {
            let limit = |kind| {
                (any::<u64>(), any::<u64>()).prop_map(
                    move |(a, b)| json!({"type": kind, "soft": a.min(b), "hard": a.max(b)}),
                )
            };
            kinds.into_iter().map(limit).collect::<Vec<_>>()
        })
        .prop_map(Value::from)
        .boxed();
    let capabilities = || some(one_of(&["CAP_KILL", "CAP_SYS_ADMIN", "CAP_CHOWN"]));
    let args = ("[^\0]{1,8}", prop::collection::vec("[^\0]{0,8}", 0..3));
    object(vec![
        ("terminal", any::<bool>().prop_map(Value::from).boxed()),
        (
            "consoleSize",
            (any::<u16>(), any::<u16>())
                .prop_map(|(width, height)| json!({"width": width, "height": height}))
                .boxed(),
        ),
        (
            "user",
            object(vec![
                ("uid", number().boxed()),
                ("gid", number().boxed()),
                ("umask", (0..=0o777).prop_map(Value::from).boxed()),
                ("additionalGids", some(number())),
            ]),
        ),
        (
            "args",
            args.prop_map(|(program, rest)| {
                std::iter::once(program)
                    .chain(rest)
                    .collect::<Vec<_>>()
                    .into()
            })
            .boxed(),
        ),
        ("env", some(variable)),
        ("cwd", path().boxed()),
        (
            "capabilities",
            object(vec![
                ("bounding", capabilities()),
                ("effective", capabilities()),
                ("permitted", capabilities()),
            ]),
        ),
        ("rlimits", limits),
        (
            "noNewPrivileges",
            any::<bool>().prop_map(Value::from).boxed(),
        ),
        ("apparmorProfile", word().boxed()),
        ("oomScoreAdj", (-1000..=1000).prop_map(Value::from).boxed()),
        ("selinuxLabel", word().boxed()),
        (
            "scheduler",
            object(vec![("policy", one_of(&["SCHED_OTHER", "SCHED_FIFO"]))]),
        ),
        (
            "ioPriority",
            object(vec![("class", one_of(&["IOPRIO_CLASS_IDLE"]))]),
        ),
    ])
}

fn linux() -> BoxedStrategy<Value> {
    let mapping = || {
        some(object(vec![
            ("containerID", number().boxed()),
            ("hostID", number().boxed()),
            ("size", number().boxed()),
        ]))
    };
    object(vec![
        ("uidMappings", mapping()),
        ("gidMappings", mapping()),
        ("sysctl", texts()),
        (
            "resources",
            object(vec![
                ("memory", object(vec![("limit", number().boxed())])),
                (
                    "cpu",
                    object(vec![("shares", number().boxed()), ("cpus", word().boxed())]),
                ),
                ("pids", object(vec![("limit", number().boxed())])),
            ]),
        ),
        ("cgroupsPath", one_of(&["", "/a", "/a/b", "a.slice:cri:b"])),
        (
            "namespaces",
            some(object(vec![
                ("type", one_of(&["pid", "mount", "network", "ipc"])),
                ("path", path().boxed()),
            ]))
            .prop_map(once_each)
            .boxed(),
        ),
        (
            "devices",
            some(object(vec![
                ("path", path().boxed()),
                ("type", one_of(&["c", "b", "u", "p"])),
                ("major", number().boxed()),
                ("minor", number().boxed()),
                ("fileMode", number().boxed()),
            ])),
        ),
        (
            "seccomp",
            object(vec![(
                "defaultAction",
                one_of(&["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"]),
            )]),
        ),
        ("rootfsPropagation", one_of(&["rslave", "private"])),
        ("maskedPaths", some(path())),
        ("readonlyPaths", some(path())),
        ("mountLabel", word().boxed()),
    ])
}

/// A document with every field of the runtime-spec, and nothing wrong with it.
fn document() -> BoxedStrategy<Value> {
    let hook = || {
        some(object(vec![
            ("path", path().boxed()),
            ("args", some(word())),
        ]))
    };
    object(vec![
        ("ociVersion", one_of(&["1.0.2", "1.1.0", "1.2.0"])),
        ("process", process()),
        (
            "root",
            object(vec![
                ("path", "[a-z]{1,6}".prop_map(Value::from).boxed()),
                ("readonly", any::<bool>().prop_map(Value::from).boxed()),
            ]),
        ),
        ("hostname", word().boxed()),
        ("domainname", word().boxed()),
        (
            "mounts",
            some(object(vec![
                ("destination", path().boxed()),
                ("type", one_of(&["bind", "tmpfs", "proc", ""])),
                ("source", path().boxed()),
                (
                    "options",
                    some(one_of(&["rbind", "ro", "rslave", "nosuid", "size=1m"])),
                ),
                ("uidMappings", Just(json!([])).boxed()),
            ])),
        ),
        (
            "hooks",
            object(vec![("prestart", hook()), ("poststop", hook())]),
        ),
        ("annotations", texts()),
        ("linux", linux()),
    ])
}

fn parse(document: &Value) -> Result<ContainerSpec, String> {
    ContainerSpec::parse(document.to_string().as_bytes(), Path::new("/b"))
        .map_err(|e| e.to_string())
}

/// As text, with members in an order and with spaces that depend on `seed`.
fn disguised(value: &Value, seed: usize) -> String {
    let space = [" ", "\n", "\t\r\n", ""][seed % 4];
    match value {
        Value::Object(map) => {
            let mut members: Vec<String> = map
                .iter()
                .map(|(key, value)| {
                    let value = disguised(value, seed / 2 + key.len());
                    format!("{space}{}{space}:{value}", json!(key))
                })
                .collect();
            let length = members.len().max(1);
            members.rotate_left(seed % length);
            if seed.is_multiple_of(3) {
                members.reverse();
            }
            format!("{{{}{space}}}", members.join(","))
        }
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| disguised(item, seed / 2 + 1))
                .collect();
            format!("{space}[{}]{space}", items.join(","))
        }
        other => format!("{space}{other}{space}"),
    }
}

/// The places of a document, as a JSON pointer and as an error writes it.
fn places(value: &Value, pointer: &str, path: &str, found: &mut Vec<(String, String)>) {
    found.push((pointer.to_owned(), path.to_owned()));
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                let plain = key
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
                let path = match (plain, path) {
                    (true, "") => key.clone(),
                    (true, _) => format!("{path}.{key}"),
                    (false, _) => format!("{path}[{key:?}]"),
                };
                places(value, &format!("{pointer}/{escaped}"), &path, found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(
                    value,
                    &format!("{pointer}/{index}"),
                    &format!("{path}[{index}]"),
                    found,
                );
            }
        }
        _ => {}
    }
}

fn unknown() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        some(word()),
        texts(),
    ]
}

proptest! {
    #[test]
    fn order_spacing_and_unknown_fields_make_no_difference(
        document in document(),
        seed in any::<usize>(),
        wheres in prop::collection::vec((any::<Index>(), unknown()), 0..4),
    ) {
        let workload = parse(&document).unwrap();
        let mut found = Vec::new();
        places(&document, "", "", &mut found);
        let mut changed = document.clone();
        for (which, value) in wheres {
            let (pointer, _) = which.get(&found);
            // All names are known where any name is data.
            if ["/annotations", "/linux/sysctl"].contains(&pointer.as_str()) {
                continue;
            }
            if let Some(Value::Object(map)) = changed.pointer_mut(pointer) {
                map.insert("xUnknown".to_owned(), value);
            }
        }
        let text = disguised(&changed, seed);
        prop_assert_eq!(ContainerSpec::parse(text.as_bytes(), Path::new("/b")).unwrap(), workload);
    }

    #[test]
    fn invalid_value_anywhere_is_named_or_not_read(
        document in document(),
        which in any::<Index>(),
        value in prop_oneof![
            Just(json!("\0")), Just(json!(-1.5)), Just(json!([[]])), Just(json!({"x": {}})),
            Just(json!(false)),
        ],
    ) {
        let workload = parse(&document).unwrap();
        let mut found = Vec::new();
        places(&document, "", "", &mut found);
        let (pointer, path) = which.get(&found).clone();
        let mut broken = document.clone();
        let place = broken.pointer_mut(&pointer).unwrap();
        // All of an object's members may be optional, and a switch may be off.
        let fits = place.is_boolean() && value.is_boolean()
            || place.is_object() && value.is_object();
        *place = value;
        match parse(&broken) {
            Ok(read) => {
                // What is not read may be anything.
                prop_assert!(read == workload || fits, "{} was accepted", path);
            }
            Err(message) => {
                let place = message.strip_prefix("/b/config.json: ").unwrap();
                let named = place.split(": expected ").next().unwrap();
                let whole = path.is_empty();
                prop_assert!(
                    whole || named.starts_with(path.as_str()),
                    "{} was broken, but the complaint is {}", path, message
                );
            }
        }
    }

    #[test]
    fn missing_value_anywhere_is_named_or_has_default(
        document in document(),
        which in any::<Index>(),
    ) {
        let mut found = Vec::new();
        places(&document, "", "", &mut found);
        let (pointer, path) = which.get(&found).clone();
        let mut without = document.clone();
        let Some((parent, key)) = pointer.rsplit_once('/') else {
            return Ok(());
        };
        if let Some(Value::Object(map)) = without.pointer_mut(parent) {
            map.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        if let Err(message) = parse(&without) {
            let prefix = format!("/b/config.json: {path}: expected ");
            prop_assert!(message.starts_with(&prefix), "{}: {}", path, message);
        }
        let required = ["process", "process.args"];
        if required.contains(&path.as_str()) {
            prop_assert!(parse(&without).is_err(), "{} is required", path);
        }
    }
}

#[test]
fn the_generated_documents_have_every_field_of_the_specification() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let document = document().new_tree(&mut runner).unwrap().current();
    let keys = |value: &Value| -> Map<String, Value> { value.as_object().unwrap().clone() };
    let whole: Value = serde_json::from_str(include_str!("corpus/podman-options.json")).unwrap();
    for (name, object, real) in [
        ("", keys(&document), keys(&whole)),
        (
            "process",
            keys(&document["process"]),
            keys(&whole["process"]),
        ),
        ("linux", keys(&document["linux"]), keys(&whole["linux"])),
    ] {
        for key in real.keys() {
            assert!(object.contains_key(key), "{name}.{key} is not generated");
        }
    }
}
