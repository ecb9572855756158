//! Options of `update`.

use std::path::PathBuf;

use clap::Args;
use reaper_spec::Resources;

use super::name::ContainerName;

/// Change the limits of a container
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  reaper-runtime update --memory 512m --pids-limit 100 web
  echo '{\"cpu\": {\"quota\": 50000, \"period\": 100000}}' | reaper-runtime update -r - web

What is not named stays as it is. If one of the limits cannot be set, none is changed.")]
pub(crate) struct UpdateArgs {
    /// The container: its id, or NAMESPACE/POD[/CONTAINER]
    pub(crate) id: ContainerName,

    /// A file with the JSON of OCI's linux.resources; - is the standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// Limits, by runc's names.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// The weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,

    /// The length of a CPU period, in microseconds
    #[arg(long, value_name = "N")]
    cpu_period: Option<u64>,

    /// The CPU time in each period, in microseconds; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,

    /// The CPU time that may be saved for a later period, in microseconds
    #[arg(long, value_name = "N")]
    cpu_burst: Option<u64>,

    /// The weight of CPU time, relative to others
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,

    /// The length of a real-time CPU period, in microseconds
    #[arg(long, value_name = "N")]
    cpu_rt_period: Option<u64>,

    /// The real-time CPU time in each period, in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,

    /// The processors, such as 0-3,7
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,

    /// The memory nodes, such as 0
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,

    /// 1 for CPU time only that nothing else wants
    #[arg(long, value_name = "N")]
    cpu_idle: Option<i64>,

    /// The most memory, in bytes or as 512m; -1 is no limit
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory: Option<i64>,

    /// The memory that is left to the container where it is short
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,

    /// The most memory and swap together; -1 is no limit
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_swap: Option<i64>,

    /// Changes nothing: kernels no longer limit their own memory
    // runc has the option, so engines may give it.
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    kernel_memory: Option<i64>,

    /// The most memory of TCP buffers (cgroup v1)
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<i64>,

    /// The most processes and threads; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

impl LimitArgs {
    /// Adds what was given.
    pub(crate) fn apply(self, resources: &mut Resources) {
        fn set<T>(to: &mut Option<T>, value: Option<T>) {
            if value.is_some() {
                *to = value;
            }
        }
        set(&mut resources.block_io.weight, self.blkio_weight);
        let cpu = &mut resources.cpu;
        set(&mut cpu.period, self.cpu_period);
        set(&mut cpu.quota, self.cpu_quota);
        set(&mut cpu.burst, self.cpu_burst);
        set(&mut cpu.shares, self.cpu_share);
        set(&mut cpu.realtime_period, self.cpu_rt_period);
        set(&mut cpu.realtime_runtime, self.cpu_rt_runtime);
        set(&mut cpu.cpus, self.cpuset_cpus);
        set(&mut cpu.mems, self.cpuset_mems);
        set(&mut cpu.idle, self.cpu_idle);
        let memory = &mut resources.memory;
        set(&mut memory.limit, self.memory);
        set(&mut memory.reservation, self.memory_reservation);
        set(&mut memory.swap, self.memory_swap);
        set(&mut memory.kernel_tcp, self.kernel_memory_tcp);
        set(&mut resources.pids.limit, self.pids_limit);
    }
}

/// Bytes, or with a unit in powers of 1024, as runc takes them: `512m`, `512MiB`, `1.5g` is not.
fn size(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no size such as 512m, and not -1");
    if text == "-1" {
        return Ok(-1);
    }
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").unwrap_or(&unit);
    let unit = unit.strip_suffix('b').unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_of_runc_sets_its_limit() {
        #[derive(clap::Parser)]
        struct Call {
            #[command(flatten)]
            limits: LimitArgs,
        }
        let parse = |args: &[&str]| {
            let call = <Call as clap::Parser>::try_parse_from([&["update"], args].concat());
            let mut resources = Resources::default();
            call.unwrap().limits.apply(&mut resources);
            resources
        };
        let expected = |json: &str| Resources::parse(json.as_bytes()).unwrap();
        for (flag, value, json) in [
            ("--blkio-weight", "500", r#"{"blockIO": {"weight": 500}}"#),
            ("--cpu-period", "100000", r#"{"cpu": {"period": 100000}}"#),
            ("--cpu-quota", "-1", r#"{"cpu": {"quota": -1}}"#),
            ("--cpu-burst", "5000", r#"{"cpu": {"burst": 5000}}"#),
            ("--cpu-share", "512", r#"{"cpu": {"shares": 512}}"#),
            (
                "--cpu-rt-period",
                "9000",
                r#"{"cpu": {"realtimePeriod": 9000}}"#,
            ),
            (
                "--cpu-rt-runtime",
                "900",
                r#"{"cpu": {"realtimeRuntime": 900}}"#,
            ),
            ("--cpuset-cpus", "0-1", r#"{"cpu": {"cpus": "0-1"}}"#),
            ("--cpuset-mems", "0", r#"{"cpu": {"mems": "0"}}"#),
            ("--cpu-idle", "1", r#"{"cpu": {"idle": 1}}"#),
            ("--memory", "1k", r#"{"memory": {"limit": 1024}}"#),
            (
                "--memory-reservation",
                "1k",
                r#"{"memory": {"reservation": 1024}}"#,
            ),
            ("--memory-swap", "-1", r#"{"memory": {"swap": -1}}"#),
            ("--kernel-memory", "1k", "{}"),
            (
                "--kernel-memory-tcp",
                "1k",
                r#"{"memory": {"kernelTCP": 1024}}"#,
            ),
            ("--pids-limit", "9", r#"{"pids": {"limit": 9}}"#),
        ] {
            assert_eq!(parse(&[flag, value]), expected(json), "{flag}");
        }
    }

    #[test]
    fn sizes_are_read_as_runc_reads_them() {
        for (text, bytes) in [
            ("-1", -1),
            ("0", 0),
            ("52428800", 50 << 20),
            ("50m", 50 << 20),
            ("50M", 50 << 20),
            ("50MB", 50 << 20),
            ("50MiB", 50 << 20),
            ("2g", 2 << 30),
            ("7 k", 7 << 10),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-2", "1.5g", "5x", "9223372036854775807k"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
