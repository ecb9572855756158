//! Reading `linux.resources`: by the types' serde form, with what that does not say checked after it.

use serde_json::Value;

use super::Resources;
use crate::error::{Invalid, quoted};

impl Resources {
    /// Reads the JSON of `linux.resources` alone, as an update has it.
    ///
    /// # Errors
    /// A value is wrong; the error names its path below `linux.resources`.
    pub fn parse(json: &[u8]) -> Result<Self, crate::Error> {
        let origin = crate::Origin::Caller;
        let value = crate::json::parse(json, &origin)?;
        Self::read(&value, "resources").map_err(|invalid| invalid.of(origin))
    }

    /// Reads `value`, which is at `place` in its document.
    pub(crate) fn read(value: &Value, place: &str) -> Result<Self, Invalid> {
        objects(value, place)?;
        let resources: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let problem = error.inner().to_string();
            let problem = problem.strip_prefix("invalid type: ").unwrap_or(&problem);
            let problem = problem.strip_prefix("invalid value: ").unwrap_or(problem);
            let (found, expected) = problem
                .split_once(", expected ")
                .unwrap_or((problem, "what the runtime-spec says"));
            Invalid {
                at: match error.path().to_string().as_str() {
                    "." => place.to_owned(),
                    path => format!("{place}.{path}"),
                },
                expected: expected.to_owned().into(),
                found: found.to_owned(),
            }
        })?;
        resources.check(place)?;
        Ok(resources)
    }

    /// What the types alone do not say.
    fn check(&self, place: &str) -> Result<(), Invalid> {
        let wrong = |at: String, expected: &'static str, found: &str| Invalid {
            at: format!("{place}.{at}"),
            expected: expected.into(),
            found: quoted(found),
        };
        // They become parts of paths.
        let is_name = |name: &str| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        for key in self.unified.keys() {
            if !is_name(key) || !key.contains('.') || key.starts_with('.') {
                let expected = "the name of a file of cgroup v2";
                return Err(wrong("unified".to_owned(), expected, key));
            }
        }
        for (index, limit) in self.hugepage_limits.iter().enumerate() {
            if !is_name(&limit.page_size) {
                let at = format!("hugepageLimits[{index}].pageSize");
                return Err(wrong(at, "a size such as 2MB", &limit.page_size));
            }
        }
        for (index, rule) in self.devices.iter().enumerate() {
            if let Some(kind) = &rule.kind
                && !["a", "b", "c", ""].contains(&kind.as_str())
            {
                let at = format!("devices[{index}].type");
                return Err(wrong(at, "a, b or c", kind));
            }
            if let Some(access) = &rule.access
                && !access.bytes().all(|byte| b"rwm".contains(&byte))
            {
                let at = format!("devices[{index}].access");
                return Err(wrong(at, "letters of rwm", access));
            }
            for (key, number) in [("major", rule.major), ("minor", rule.minor)] {
                if let Some(number) = number
                    && number != -1
                    && u32::try_from(number).is_err()
                {
                    let at = format!("devices[{index}].{key}");
                    let expected = "an integer from -1 to 4294967295";
                    return Err(wrong(at, expected, &number.to_string()));
                }
            }
        }
        let unified = self.unified.iter();
        let priorities = self.network.priorities.iter().enumerate();
        let texts =
            [("cpu.cpus", &self.cpu.cpus), ("cpu.mems", &self.cpu.mems)]
                .into_iter()
                .filter_map(|(at, text)| Some((at.to_owned(), text.as_ref()?)))
                .chain(unified.map(|(key, text)| (format!("unified[{key:?}]"), text)))
                .chain(priorities.map(|(index, entry)| {
                    (format!("network.priorities[{index}].name"), &entry.name)
                }))
                .chain(self.rdma.keys().map(|name| ("rdma".to_owned(), name)));
        for (at, text) in texts {
            if text.contains('\0') {
                return Err(wrong(at, "text without NUL", text));
            }
        }
        Ok(())
    }
}

/// Checks that what is to be an object is one: serde's derived readers take an array as well.
fn objects(value: &Value, place: &str) -> Result<(), Invalid> {
    let object = |value: &Value, at: String| match value {
        Value::Object(_) | Value::Null => Ok(()),
        _ => Err(Invalid {
            at,
            expected: "an object".into(),
            found: "something else".to_owned(),
        }),
    };
    object(value, place.to_owned())?;
    for key in ["memory", "cpu", "pids", "blockIO", "network"] {
        object(&value[key], format!("{place}.{key}"))?;
    }
    let (io, network) = (&value["blockIO"], &value["network"]);
    let lists = [
        ("devices", &value["devices"]),
        ("hugepageLimits", &value["hugepageLimits"]),
        ("network.priorities", &network["priorities"]),
        ("blockIO.weightDevice", &io["weightDevice"]),
        (
            "blockIO.throttleReadBpsDevice",
            &io["throttleReadBpsDevice"],
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            &io["throttleWriteBpsDevice"],
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            &io["throttleReadIOPSDevice"],
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            &io["throttleWriteIOPSDevice"],
        ),
    ];
    for (name, list) in lists {
        for (index, item) in list.as_array().into_iter().flatten().enumerate() {
            object(item, format!("{place}.{name}[{index}]"))?;
        }
    }
    let rdma = value["rdma"].as_object().into_iter().flatten();
    for (name, limit) in rdma {
        object(limit, format!("{place}.rdma.{name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Resources, String> {
        Resources::read(&value, "linux.resources").map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn resources_are_read_and_written_in_the_form_of_the_runtime_spec() {
        let document = json!({
            "devices": [{"allow": false, "access": "rwm"},
                        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
            "memory": {"limit": 52_428_800, "reservation": 1, "swap": -1, "kernelTCP": 5,
                       "swappiness": 0, "disableOOMKiller": true, "checkBeforeUpdate": true},
            "cpu": {"shares": 2, "quota": -1, "burst": 1, "period": 100_000, "cpus": "0-1",
                    "mems": "0", "idle": 1, "realtimeRuntime": 1, "realtimePeriod": 2},
            "pids": {"limit": 20},
            "blockIO": {"weight": 10, "leafWeight": 20,
                        "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 2}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "network": {"classID": 1, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3}},
            "unified": {"memory.high": "1"}
        });
        let resources = read(document.clone()).unwrap();
        assert_eq!(serde_json::to_value(&resources).unwrap(), document);
        assert_eq!(resources.memory.limit, Some(50 << 20));
    }

    #[test]
    fn null_is_the_same_as_absent() {
        let nulls = json!({"memory": null, "cpu": {"shares": null}, "devices": null,
                           "blockIO": {"weightDevice": null}, "unified": null});
        assert_eq!(read(nulls).unwrap(), Resources::default());
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        for (document, expected) in [
            (
                json!({"memory": {"limit": "1g"}}),
                "linux.resources.memory.limit: expected i64, found string \"1g\"",
            ),
            (
                json!({"devices": [{"allow": true, "type": "x"}]}),
                "linux.resources.devices[0].type: expected a, b or c, found \"x\"",
            ),
            (
                json!({"unified": {"../memory.max": "1"}}),
                "linux.resources.unified: expected the name of a file of cgroup v2, found \
                 \"../memory.max\"",
            ),
            (
                json!({"hugepageLimits": [{"pageSize": "2/MB", "limit": 1}]}),
                "linux.resources.hugepageLimits[0].pageSize: expected a size such as 2MB, found \
                 \"2/MB\"",
            ),
        ] {
            assert_eq!(read(document).unwrap_err(), expected);
        }
    }
}
