//! The conversions between what OCI says, in the terms of cgroup v1, and cgroup v2's files.
//!
//! They are runc's (github.com/opencontainers/cgroups, `utils.go`), so that a workload has the same
//! share beside runc's containers as below runc, and the kubelet reads back what it asked for.

/// `cpu.weight` of `cpu.shares`: 2 to 262144 become 1 to 10000. Others count as the nearest.
pub(crate) fn weight_of_shares(shares: u64) -> u64 {
    1 + ((shares.clamp(2, 262_144) - 2) * 9999) / 262_142
}

/// `io.weight` of `blkio.weight`: 10 to 1000 become 1 to 10000.
pub(crate) fn io_weight_of_blkio(weight: u16) -> u64 {
    1 + (u64::from(weight.clamp(10, 1000)) - 10) * 9999 / 990
}

/// `memory.swap.max`, which is swap alone, of OCI's `swap`, which is memory and swap together.
/// `None` leaves it as it is, -1 is no limit.
pub(crate) fn swap_alone(limit: Option<i64>, swap: Option<i64>) -> Result<Option<i64>, String> {
    let given = |value: Option<i64>| value.filter(|&value| value != 0);
    match (given(limit), given(swap)) {
        // Without a limit of memory there is none of swap either.
        (Some(-1), None) | (_, Some(-1)) => Ok(Some(-1)),
        (_, None) => Ok(None),
        (None | Some(-1), Some(_)) => Err("swap is limited, but memory is not".to_owned()),
        (Some(limit), Some(swap)) if limit >= 0 && swap >= limit => Ok(Some(swap - limit)),
        (Some(limit), Some(swap)) => Err(format!(
            "memory and swap together ({swap}) are less than memory ({limit})"
        )),
    }
}
