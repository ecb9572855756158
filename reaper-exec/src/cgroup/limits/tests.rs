use std::{collections::BTreeMap, fs, path::Path};

use proptest::prelude::*;
use reaper_spec::Resources;
use serde_json::{Value, json};

use super::{
    super::{Cgroups, V1Cgroup, V1Hierarchy},
    apply,
    convert::{io_weight_of_blkio, swap_alone, weight_of_shares},
    table::{Setting, TABLE},
};

fn resources(document: &Value) -> Resources {
    Resources::parse(document.to_string().as_bytes()).expect("resources")
}

/// What a setting is in the files of one version: the first choice of each write.
fn files(document: &Value, v2: bool) -> Result<BTreeMap<String, String>, String> {
    let resources = resources(document);
    let mut found = BTreeMap::new();
    for setting in TABLE {
        let files = if v2 { &setting.v2 } else { &setting.v1 };
        let Some(files) = files else {
            assert!(!(setting.is_asked)(&resources), "{}", setting.name);
            continue;
        };
        for write in (files.writes)(&resources)? {
            let (file, value) = write.choices.into_iter().next().expect("a choice");
            found
                .entry(file)
                .and_modify(|before: &mut String| {
                    before.push('\n');
                    before.push_str(&value);
                })
                .or_insert(value);
        }
    }
    Ok(found)
}

#[track_caller]
fn check(document: &Value, v2: bool, expected: &[(&str, &str)]) {
    let expected = expected
        .iter()
        .map(|(file, value)| ((*file).to_owned(), (*value).to_owned()));
    assert_eq!(files(document, v2), Ok(expected.collect()), "{document}");
}

#[test]
fn a_limit_is_in_the_file_that_runc_writes_it_to() {
    let cpu = json!({"cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 1000,
                             "cpus": "0-1", "mems": "0", "idle": 0}});
    check(
        &cpu,
        false,
        &[
            ("cpu.shares", "512"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_burst_us", "1000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("cpu.idle", "0"),
        ],
    );
    check(
        &cpu,
        true,
        &[
            ("cpu.weight", "20"),
            ("cpu.max", "50000 100000"),
            ("cpu.max.burst", "1000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("cpu.idle", "0"),
        ],
    );
    let memory = json!({"memory": {"limit": 100, "swap": 300, "reservation": 50},
                        "pids": {"limit": 20}});
    check(
        &memory,
        false,
        &[
            ("memory.limit_in_bytes", "100"),
            ("memory.memsw.limit_in_bytes", "300"),
            ("memory.soft_limit_in_bytes", "50"),
            ("pids.max", "20"),
        ],
    );
    check(
        &memory,
        true,
        &[
            ("memory.max", "100"),
            ("memory.swap.max", "200"),
            ("memory.low", "50"),
            ("pids.max", "20"),
        ],
    );
    let io = json!({"blockIO": {"weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 100}],
        "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
        "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 2}],
        "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
        "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}]}});
    check(
        &io,
        false,
        &[
            ("blkio.weight", "500"),
            ("blkio.weight_device", "8:0 100"),
            ("blkio.throttle.read_bps_device", "8:0 1"),
            ("blkio.throttle.write_bps_device", "8:1 2"),
            ("blkio.throttle.read_iops_device", "8:0 3"),
            ("blkio.throttle.write_iops_device", "8:0 4"),
        ],
    );
    check(
        &io,
        true,
        &[
            ("io.bfq.weight", "500\n8:0 100"),
            ("io.max", "8:0 rbps=1\n8:1 wbps=2\n8:0 riops=3\n8:0 wiops=4"),
        ],
    );
    let others = json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}}});
    check(
        &others,
        true,
        &[
            ("hugetlb.2MB.max", "0"),
            ("hugetlb.2MB.rsvd.max", "0"),
            ("rdma.max", "mlx5_1 hca_handle=3 hca_object=4"),
        ],
    );
    let v1_only = json!({"network": {"classID": 7, "priorities": [{"name": "eth0", "priority": 5}]},
                         "memory": {"swappiness": 0, "disableOOMKiller": true, "kernelTCP": 9},
                         "cpu": {"realtimeRuntime": 1, "realtimePeriod": 2}});
    check(
        &v1_only,
        false,
        &[
            ("net_cls.classid", "7"),
            ("net_prio.ifpriomap", "eth0 5"),
            ("memory.swappiness", "0"),
            ("memory.oom_control", "1"),
            ("memory.kmem.tcp.limit_in_bytes", "9"),
            ("cpu.rt_period_us", "2"),
            ("cpu.rt_runtime_us", "1"),
        ],
    );
}

#[test]
fn no_limit_is_written_as_such_and_absent_leaves_what_is() {
    let unlimited = json!({"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}});
    check(
        &unlimited,
        false,
        &[
            ("memory.limit_in_bytes", "-1"),
            ("memory.memsw.limit_in_bytes", "-1"),
            ("pids.max", "max"),
            ("cpu.cfs_quota_us", "-1"),
        ],
    );
    check(
        &unlimited,
        true,
        &[
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("pids.max", "max"),
            ("cpu.max", "max"),
        ],
    );
    let absent = json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0},
                        "pids": {"limit": 0}});
    check(&absent, false, &[]);
    check(&absent, true, &[]);
    // The kernel refuses a share of what is idle.
    let idle = json!({"cpu": {"idle": 1, "shares": 100}});
    check(&idle, false, &[("cpu.idle", "1")]);
    check(&idle, true, &[("cpu.idle", "1")]);
}

#[test]
fn swap_below_memory_is_named() {
    let wrong = json!({"memory": {"limit": 200, "swap": 100}});
    let reason = files(&wrong, true).unwrap_err();
    assert!(
        reason.contains("(100) are less than memory (200)"),
        "{reason}"
    );
    let unlimited = json!({"memory": {"swap": 100}});
    assert!(
        files(&unlimited, true)
            .unwrap_err()
            .contains("memory is not")
    );
}

#[test]
fn what_engines_write_into_each_spec_asks_for_nothing() {
    for engines in [
        json!({"cpu": {"shares": 2}}),
        json!({"cpu": {"shares": 1024}}),
        json!({"cpu": {"shares": 2, "quota": 0, "period": 100_000}, "memory": {"limit": 0}}),
        json!({"devices": [{"allow": false, "access": "rwm"}]}),
        json!({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"idle": 0}}),
    ] {
        let resources = resources(&engines);
        let asked: Vec<_> = TABLE
            .iter()
            .filter(|setting| (setting.is_asked)(&resources))
            .map(|setting| setting.name)
            .collect();
        assert!(asked.is_empty(), "{engines}: {asked:?}");
        assert!(apply(&Cgroups::default(), &resources, &[]).is_ok());
    }
}

#[test]
fn each_setting_without_its_controller_is_refused_by_name() {
    for (name, document) in [
        ("cpu.idle", json!({"cpu": {"idle": 1}})),
        ("cpu.shares", json!({"cpu": {"shares": 512}})),
        ("cpu.quota", json!({"cpu": {"quota": 10_000}})),
        (
            "cpu.realtimeRuntime",
            json!({"cpu": {"realtimeRuntime": 1}}),
        ),
        ("cpu.cpus", json!({"cpu": {"cpus": "0"}})),
        ("cpu.mems", json!({"cpu": {"mems": "0"}})),
        ("memory.limit", json!({"memory": {"limit": 1}})),
        ("memory.reservation", json!({"memory": {"reservation": 1}})),
        ("memory.swappiness", json!({"memory": {"swappiness": 0}})),
        (
            "memory.disableOOMKiller",
            json!({"memory": {"disableOOMKiller": true}}),
        ),
        ("memory.kernelTCP", json!({"memory": {"kernelTCP": 1}})),
        ("pids.limit", json!({"pids": {"limit": 1}})),
        ("blockIO", json!({"blockIO": {"weight": 10}})),
        (
            "hugepageLimits",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}),
        ),
        ("rdma", json!({"rdma": {"x": {"hcaHandles": 1}}})),
        ("network.classID", json!({"network": {"classID": 1}})),
        (
            "network.priorities",
            json!({"network": {"priorities": [{"name": "a", "priority": 1}]}}),
        ),
        (
            "unified[\"memory.high\"]",
            json!({"unified": {"memory.high": "1"}}),
        ),
    ] {
        let error = apply(&Cgroups::default(), &resources(&document), &[]).unwrap_err();
        let expected = format!("cannot set linux.resources.{name}: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    // All rows are above.
    let names: Vec<&str> = TABLE.iter().map(|setting: &Setting| setting.name).collect();
    assert_eq!(names.len(), 17, "{names:?}");
}

/// Cgroups of version 1 in a directory, with the files that are named.
fn fake(root: &Path, controller: &str, present: &[&str]) -> Cgroups {
    let hierarchy = V1Hierarchy::at(root, &[controller]);
    let cgroup = V1Cgroup::at(&hierarchy, Path::new("web")).expect("a path");
    fs::create_dir(cgroup.path()).expect("a folder");
    for file in present {
        fs::write(cgroup.path().join(file), "").expect("a file");
    }
    Cgroups::of_v1(vec![cgroup])
}

#[test]
fn a_file_that_the_kernel_lacks_is_named_with_its_value() {
    let root = tempfile::tempdir().expect("a folder");
    let cgroups = fake(root.path(), "memory", &["memory.limit_in_bytes"]);
    let limited = json!({"memory": {"limit": 100, "swap": 100}});
    let error = apply(&cgroups, &resources(&limited), &[]).unwrap_err();
    let file = root.path().join("web/memory.memsw.limit_in_bytes");
    let expected = format!(
        "cannot set linux.resources.memory.limit: writing \"100\" to {}: No such file or directory \
         (os error 2)",
        file.display()
    );
    assert_eq!(error.to_string(), expected);
    let written = fs::read_to_string(root.path().join("web/memory.limit_in_bytes"));
    assert_eq!(written.expect("the limit"), "100");
}

#[test]
fn alternative_cgroup_file_is_used_when_first_is_missing() {
    let root = tempfile::tempdir().expect("a folder");
    let cgroups = fake(root.path(), "blkio", &["blkio.bfq.weight"]);
    let weight = json!({"blockIO": {"weight": 300}});
    apply(&cgroups, &resources(&weight), &[]).expect("a weight");
    let written = fs::read_to_string(root.path().join("web/blkio.bfq.weight"));
    assert_eq!(written.expect("the weight"), "300");
}

proptest! {
    #[test]
    fn conversions_stay_in_their_range_and_keep_the_order(shares in 0_u64..=300_000, more in 0_u64..1000) {
        let weight = weight_of_shares(shares);
        prop_assert!((1..=10_000).contains(&weight));
        prop_assert!(weight <= weight_of_shares(shares + more));
        // As runc computes it.
        if (2..=262_144).contains(&shares) {
            prop_assert_eq!(weight, 1 + ((shares - 2) * 9999) / 262_142);
        }
    }

    #[test]
    fn io_weights_stay_in_their_range(weight in 10_u16..=1000) {
        prop_assert_eq!(io_weight_of_blkio(weight), 1 + (u64::from(weight) - 10) * 9999 / 990);
        prop_assert!((1..=10_000).contains(&io_weight_of_blkio(weight)));
    }

    #[test]
    fn swap_alone_is_what_both_have_beyond_memory(limit in 1_i64..1 << 50, more in 0_i64..1 << 50) {
        prop_assert_eq!(swap_alone(Some(limit), Some(limit + more)), Ok(Some(more)));
        prop_assert_eq!(swap_alone(Some(limit), Some(-1)), Ok(Some(-1)));
        prop_assert_eq!(swap_alone(Some(limit), None), Ok(None));
        prop_assert!(swap_alone(Some(limit + more + 1), Some(limit)).is_err());
    }
}

#[test]
fn ends_of_the_ranges_are_converted_to_ends() {
    assert_eq!(
        (weight_of_shares(2), weight_of_shares(262_144)),
        (1, 10_000)
    );
    assert_eq!(
        (weight_of_shares(0), weight_of_shares(u64::MAX)),
        (1, 10_000)
    );
    assert_eq!(weight_of_shares(1024), 39);
    assert_eq!(
        (io_weight_of_blkio(10), io_weight_of_blkio(1000)),
        (1, 10_000)
    );
}
