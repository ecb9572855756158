//! `stats`.

use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use reaper_exec::{Error as ExecutorError, Executor, Stats};
use reaper_spec::ContainerId;
use rustix::{stdio, termios::isatty};
use serde::Serialize;

use super::{
    context::CommandContext,
    names::find_all,
    output::{print, size},
    selection::known,
    table::{or_dash, print_plain},
};
use crate::{
    args::StatsArgs,
    error::{Error, Result},
    host::ContainerEngine,
    outcome::ExitAction,
};

/// How many containers are asked at a time.
const AT_A_TIME: usize = 32;

/// Has a terminal begin at its top, and forget what is there.
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(crate) async fn run(
    mut call: CommandContext,
    args: &StatsArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    let ids = &find_all(&mut call, &args.ids).await?;
    let containers = &call.containers;
    for id in ids {
        let status = containers.state(id).await?.status;
        if !status.is_alive() {
            return Err(Error::Status {
                operation: "measure",
                id: id.to_string(),
                status,
            });
        }
    }
    let clears = !args.no_stream && !args.json && isatty(stdio::stdout());
    let mut before = BTreeMap::new();
    if args.no_stream {
        before = measure(containers, ids).await?;
        tokio::time::sleep(args.interval).await;
    }
    loop {
        let now = measure(containers, ids).await?;
        if now.is_empty() && !ids.is_empty() {
            return Ok(ExitAction::DONE);
        }
        let lines: Vec<_> = now
            .iter()
            .map(|(id, sample)| Usage::of(id, sample, before.get(id)))
            .collect();
        if clears {
            print(out, format_args!("{CLEAR}"))?;
        }
        if args.json {
            let text = serde_json::to_string(&lines).map_err(|error| Error::Io {
                operation: "write JSON".into(),
                source: error.into(),
            })?;
            print(out, format_args!("{text}\n"))?;
        } else {
            let head = ["ID", "CPU %", "MEMORY / LIMIT", "PIDS", "READ / WRITTEN"];
            let rows: Vec<_> = lines.iter().map(Usage::row).collect();
            print_plain(out, call.colours, &head, &rows)?;
        }
        if args.no_stream {
            return Ok(ExitAction::DONE);
        }
        before = now;
        tokio::time::sleep(args.interval).await;
    }
}

/// What a container used at a time.
struct Sample {
    at: Instant,
    stats: Stats,
}

/// Measures these containers, or all that have processes. One that has ended meanwhile is left out.
async fn measure(
    containers: &ContainerEngine,
    ids: &[ContainerId],
) -> Result<BTreeMap<ContainerId, Sample>> {
    let ids = match ids {
        [] => {
            let records = known(containers).await?.records.into_iter();
            let alive = records.filter(|record| record.status.is_alive());
            alive.map(|record| record.id).collect()
        }
        ids => ids.to_vec(),
    };
    let ask = |id: ContainerId| async move {
        let stats = containers.executor().stats(&id).await;
        let at = Instant::now();
        (id, stats.map(|stats| Sample { at, stats }))
    };
    let mut answers = stream::iter(ids).map(ask).buffered(AT_A_TIME);
    let mut found = BTreeMap::new();
    while let Some((id, sample)) = answers.next().await {
        match sample {
            Err(ExecutorError::NotFound(_) | ExecutorError::Ended(_)) => {}
            Err(error) => return Err(error.into()),
            Ok(sample) => {
                found.insert(id, sample);
            }
        }
    }
    Ok(found)
}

/// What a container uses, for people and programs.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Usage<'a> {
    id: &'a str,
    /// Of one processor, since it was last measured; absent the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_percent: Option<f64>,
    /// What the kubelet counts: without file pages that were not used lately.
    memory_working_set: u64,
    memory_usage: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_limit: Option<u64>,
    /// Processes and threads.
    pids: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids_limit: Option<u64>,
    /// Of block devices; absent where no cgroup counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_bytes: Option<u64>,
}

impl<'a> Usage<'a> {
    fn of(id: &'a ContainerId, now: &Sample, before: Option<&Sample>) -> Self {
        let stats = &now.stats;
        let cgroups = stats.cgroups.as_deref();
        let memory = cgroups.and_then(|cgroups| cgroups.memory.as_ref());
        let pids = cgroups.and_then(|cgroups| cgroups.pids.as_ref());
        let inactive = memory.map_or(0, |memory| memory.inactive_file());
        let cpu = |sample: &Sample| sample.stats.cpu_user_ns + sample.stats.cpu_system_ns;
        Self {
            id: id.as_str(),
            cpu_percent: before.map(|before| {
                let used = Duration::from_nanos(cpu(now).saturating_sub(cpu(before)));
                let passed = now.at.duration_since(before.at).as_secs_f64();
                let percent = used.as_secs_f64() / passed.max(f64::MIN_POSITIVE) * 100.0;
                (percent * 10.0).round() / 10.0
            }),
            memory_working_set: stats.memory_bytes.saturating_sub(inactive),
            memory_usage: stats.memory_bytes,
            memory_limit: memory.and_then(|memory| memory.memory.limit),
            pids: pids.map_or(stats.threads, |pids| pids.current),
            pids_limit: pids.and_then(|pids| pids.limit),
            read_bytes: cgroups.map(|cgroups| cgroups.io.iter().map(|io| io.read_bytes).sum()),
            written_bytes: cgroups.map(|cgroups| cgroups.io.iter().map(|io| io.write_bytes).sum()),
        }
    }

    fn row(&self) -> [String; 5] {
        let limit = or_dash(self.memory_limit.map(size));
        let io = |bytes: Option<u64>| or_dash(bytes.map(size));
        [
            self.id.to_owned(),
            or_dash(self.cpu_percent.map(|percent| format!("{percent:.1}"))),
            format!("{} / {limit}", size(self.memory_working_set)),
            self.pids.to_string(),
            format!("{} / {}", io(self.read_bytes), io(self.written_bytes)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_a_part_of_the_time_that_has_passed() {
        let id = ContainerId::new("web").unwrap();
        let begin = Instant::now();
        let sample = |milliseconds: u64, cpu_user_ns, memory_bytes| Sample {
            at: begin + Duration::from_millis(milliseconds),
            stats: Stats::default()
                .with_cpu_user_ns(cpu_user_ns)
                .with_memory_bytes(memory_bytes)
                .with_threads(3),
        };
        let first = sample(0, 1_000_000, 2048);
        let second = sample(500, 751_000_000, 4096);
        let row = Usage::of(&id, &first, None).row();
        assert_eq!(row, ["web", "-", "2.0 KiB / -", "3", "- / -"]);
        let row = Usage::of(&id, &second, Some(&first)).row();
        assert_eq!(row, ["web", "150.0", "4.0 KiB / -", "3", "- / -"]);
        // Figures of a moment, and a counter that a new container of the name began anew.
        let row = Usage::of(&id, &first, Some(&second)).row();
        assert_eq!(row[1], "0.0");
    }
}
