//! What a bundle limits: `linux.resources`.
//!
//! The types are this crate's own rather than those of `oci-spec`: each value is optional, so that
//! an update can name some and leave the others, `null` is the same as absent, as Go writes it, and
//! keys that are newer than a release of that crate are read.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::Invalid;

/// `linux.resources` of a bundle (runtime-spec, config-linux.md, "Control groups"), and what an
/// update of a running container names. What is absent is left as it is.
///
/// Its serde form is OCI's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resources {
    /// Which devices may be used, in order: the last rule that matches decides.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceRule>,
    /// Memory.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub memory: MemoryResources,
    /// CPU time, and which CPUs.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub cpu: CpuResources,
    /// Processes and threads.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub pids: PidsResources,
    /// Block devices.
    #[serde(
        rename = "blockIO",
        deserialize_with = "nullable",
        skip_serializing_if = "is_default"
    )]
    pub block_io: BlockIoResources,
    /// Huge pages, for each size.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub hugepage_limits: Vec<HugepageLimit>,
    /// Marks of network packets.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_default")]
    pub network: NetworkResources,
    /// RDMA handles and objects, by the name of the device.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub rdma: BTreeMap<String, RdmaLimit>,
    /// Files of cgroup v2, by their names, and what to write to them.
    #[serde(
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub unified: BTreeMap<String, String>,
}

/// `linux.resources.devices[]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRule {
    /// Whether what matches may be used.
    pub allow: bool,
    /// `c`, `b`, or `a` for both, as which none counts.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `None` and -1 are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// `None` and -1 are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Of `r`, `w` and `m`; `None` are all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
}

/// `linux.resources.memory`, in bytes; -1 is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the runtime-spec")]
pub struct MemoryResources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Of memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<i64>,
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub kernel_tcp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub disable_oom_killer: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_hierarchy: Option<bool>,
    /// A limit below what is in use is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_before_update: Option<bool>,
}

/// `linux.resources.cpu`, times in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the runtime-spec")]
pub struct CpuResources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// In each period; below 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mems: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<i64>,
}

/// `linux.resources.pids`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PidsResources {
    /// How many; below 0 is no limit, 0 the same as absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}

/// `linux.resources.blockIO`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the runtime-spec")]
pub struct BlockIoResources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub weight_device: Vec<WeightDevice>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(
        rename = "throttleReadIOPSDevice",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(
        rename = "throttleWriteIOPSDevice",
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// `linux.resources.blockIO.weightDevice[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the runtime-spec")]
pub struct WeightDevice {
    pub major: i64,
    pub minor: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf_weight: Option<u16>,
}

/// `linux.resources.blockIO.throttle…Device[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the runtime-spec")]
pub struct ThrottleDevice {
    pub major: i64,
    pub minor: i64,
    /// Bytes or operations in a second.
    pub rate: u64,
}

/// `linux.resources.hugepageLimits[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HugepageLimit {
    /// As the kernel calls it, `2MB` or `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// `linux.resources.network`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkResources {
    /// The class of packets (net_cls).
    #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
    pub class_id: Option<u32>,
    /// The priority of packets (net_prio).
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub priorities: Vec<InterfacePriority>,
}

/// `linux.resources.network.priorities[]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the runtime-spec")]
pub struct InterfacePriority {
    pub name: String,
    pub priority: u32,
}

/// `linux.resources.rdma.NAME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are those of the runtime-spec")]
pub struct RdmaLimit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_handles: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hca_objects: Option<u32>,
}

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
            found: crate::error::quoted(found),
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
                && !["a", "b", "c", "u", "p", ""].contains(&kind.as_str())
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

/// `null` is the same as absent.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
