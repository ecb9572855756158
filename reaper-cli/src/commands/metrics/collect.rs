//! What there is to be told.
//!
//! The number of time series is bounded: labels are words of fixed sets, and the names of scopes that last. Scopes that
//! go with their pod or container are summed up, and so is what is beyond [`MAX_SCOPES`].

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use futures_util::{StreamExt as _, stream};
use reaper_exec::engine::{Error as EngineError, Metrics, OperationMetrics};
use reaper_overlay::{Overlays, Scope};
use reaper_spec::{Config, Status};
use reaper_state::Error as StoreError;

use super::text::{Exposition, Kind};
use crate::{
    commands::{context::CommandContext, roots::engines},
    error::{Error, Result},
    host::ContainerEngine,
};

/// How many scopes are told apart.
const MAX_SCOPES: usize = 100;
/// How many containers are looked at at a time.
const AT_A_TIME: usize = 32;

/// Everything, as text.
pub(super) async fn collect(call: &CommandContext) -> Result<String> {
    let mut text = Exposition::default();
    text.family("reaper_build_info", Kind::Gauge, "The version of Reaper.");
    let version = env!("CARGO_PKG_VERSION");
    text.sample("reaper_build_info", &[("version", version)], 1);
    containers(call, &mut text).await?;
    operations(call, &mut text)?;
    // Walking through large overlays takes its time, in which other readers are served.
    let config = call.config.clone();
    let overlays = tokio::task::spawn_blocking(move || scopes(&config)).await;
    let overlays = overlays.map_err(|error| Error::Io {
        operation: "look at the overlays".to_owned(),
        source: error.into(),
    })??;
    write_scopes(&overlays, &mut text);
    Ok(text.text())
}

async fn containers(call: &CommandContext, text: &mut Exposition) -> Result<()> {
    let mut counts = Status::ALL.map(|status| (status, 0_u64));
    let mut unreadable = 0_u64;
    for (_, engine) in engines(call)? {
        count(&engine, &mut counts, &mut unreadable).await?;
    }
    let name = "reaper_containers";
    text.family(
        name,
        Kind::Gauge,
        "Containers by status, sandboxes of pods among them.",
    );
    for (status, count) in counts {
        text.sample(name, &[("status", status.as_str())], count);
    }
    let name = "reaper_containers_unreadable";
    text.family(
        name,
        Kind::Gauge,
        "Containers whose record or monitor cannot be read.",
    );
    text.sample(name, &[], unreadable);
    Ok(())
}

async fn count(
    engine: &ContainerEngine,
    counts: &mut [(Status, u64)],
    unreadable: &mut u64,
) -> Result<()> {
    let ids = engine.list().await?;
    let states = stream::iter(&ids).map(|id| engine.known_state(id));
    let mut states = states.buffered(AT_A_TIME);
    while let Some(state) = states.next().await {
        match state {
            // It was deleted meanwhile.
            Err(EngineError::Store(StoreError::NotFound { .. })) => {}
            Err(_) => *unreadable += 1,
            Ok((record, reason)) => {
                *unreadable += u64::from(reason.is_some());
                let count = counts
                    .iter_mut()
                    .find(|(status, _)| *status == record.status);
                count.into_iter().for_each(|(_, count)| *count += 1);
            }
        }
    }
    Ok(())
}

fn operations(call: &CommandContext, text: &mut Exposition) -> Result<()> {
    let failed = || Error::io("read the counts of what was done");
    let metrics = Metrics::open(call.containers.root()).map_err(failed())?;
    let operations = metrics.operations();
    let began = metrics
        .began()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let name = "reaper_counters_start_time_seconds";
    text.family(
        name,
        Kind::Gauge,
        "Since when operations are counted, in seconds since 1970.",
    );
    text.sample(name, &[], began.as_secs());

    let name = "reaper_container_operation_duration_seconds";
    text.family(
        name,
        Kind::Histogram,
        "How long operations on containers took that succeeded.",
    );
    for operation in &operations {
        write_durations(name, operation, text);
    }
    let name = "reaper_container_starts_total";
    text.family(
        name,
        Kind::Counter,
        "Containers whose program was executed.",
    );
    let starts = operations.iter().filter(|it| it.operation == "start");
    text.sample(name, &[], starts.map(successes).sum::<u64>());
    let name = "reaper_container_operation_failures_total";
    text.family(
        name,
        Kind::Counter,
        "Operations on containers that failed, by what failed.",
    );
    for operation in &operations {
        for (step, count) in &operation.failures {
            let labels = [("operation", operation.operation), ("step", step)];
            text.sample(name, &labels, count);
        }
    }
    Ok(())
}

fn successes(operation: &OperationMetrics) -> u64 {
    let within: u64 = operation.durations.iter().map(|(_, count)| count).sum();
    within + operation.longer
}

fn write_durations(name: &str, metrics: &OperationMetrics, text: &mut Exposition) {
    let operation = ("operation", metrics.operation);
    let bucket = format!("{name}_bucket");
    let mut sum = 0;
    for (bound, count) in &metrics.durations {
        sum += count;
        let bound = bound.as_secs_f64().to_string();
        text.sample(&bucket, &[operation, ("le", &bound)], sum);
    }
    let all = successes(metrics);
    text.sample(&bucket, &[operation, ("le", "+Inf")], all);
    let total = metrics.total.as_secs_f64();
    text.sample(&format!("{name}_sum"), &[operation], total);
    text.sample(&format!("{name}_count"), &[operation], all);
}

/// What scopes hold.
#[derive(Debug, Default)]
struct Scopes {
    by_label: BTreeMap<String, Held>,
    unreadable: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Held {
    scopes: u64,
    bytes: u64,
    files: u64,
    /// Of the scopes that have a limit.
    limit: Option<u64>,
}

fn scopes(config: &Config) -> Result<Scopes> {
    let overlays = Overlays::new(&config.overlay);
    let mut all = Scopes::default();
    let measure = |scope: &Scope| -> std::result::Result<_, reaper_overlay::Error> {
        let info = overlays.inspect(scope)?;
        let usage = overlays.disk_usage(scope, &mut |_| ())?;
        Ok(info.map(|info| Held {
            scopes: 1,
            bytes: usage.bytes,
            files: usage.files,
            limit: info.limit,
        }))
    };
    for scope in overlays.scopes()? {
        match measure(&scope) {
            Ok(Some(held)) => all.add(scope.as_str(), held),
            // It was removed meanwhile.
            Ok(None) | Err(reaper_overlay::Error::ScopeNotFound { .. }) => {}
            Err(_) => all.unreadable += 1,
        }
    }
    Ok(all)
}

impl Scopes {
    fn add(&mut self, scope: &str, held: Held) {
        let label = match scope.split_once('-') {
            Some(("pod", _)) => "pods",
            Some(("container", _)) => "containers",
            _ if self.by_label.len() >= MAX_SCOPES && !self.by_label.contains_key(scope) => {
                "others"
            }
            _ => scope,
        };
        let sum = self.by_label.entry(label.to_owned()).or_default();
        sum.scopes += held.scopes;
        sum.bytes += held.bytes;
        sum.files += held.files;
        if let Some(limit) = held.limit {
            sum.limit = Some(sum.limit.unwrap_or_default() + limit);
        }
    }
}

fn write_scopes(scopes: &Scopes, text: &mut Exposition) {
    type Value = fn(&Held) -> Option<u64>;
    let families: [(&str, &str, Value); 4] = [
        ("reaper_overlay_scopes", "Overlays, of this label.", |it| {
            Some(it.scopes)
        }),
        (
            "reaper_overlay_bytes",
            "What was written in overlays.",
            |it| Some(it.bytes),
        ),
        (
            "reaper_overlay_files",
            "Files, directories and marks of removed files in overlays.",
            |it| Some(it.files),
        ),
        (
            "reaper_overlay_limit_bytes",
            "How much may be written in overlays that have a limit.",
            |it| it.limit,
        ),
    ];
    for (name, help, value) in families {
        text.family(name, Kind::Gauge, help);
        for (scope, held) in &scopes.by_label {
            if let Some(value) = value(held) {
                text.sample(name, &[("scope", scope)], value);
            }
        }
    }
    let name = "reaper_overlay_scopes_unreadable";
    text.family(name, Kind::Gauge, "Overlays that cannot be looked at.");
    text.sample(name, &[], scopes.unreadable);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_number_of_scopes_that_are_told_apart_is_bounded() {
        let mut all = Scopes::default();
        let held = Held {
            scopes: 1,
            bytes: 10,
            files: 2,
            limit: Some(100),
        };
        for number in 0..2 * MAX_SCOPES {
            for kind in ["container", "group", "pod"] {
                all.add(&format!("{kind}-{number}"), held);
            }
        }
        all.add(
            "group-0",
            Held {
                limit: None,
                ..held
            },
        );
        assert_eq!(all.by_label.len(), MAX_SCOPES + 1);
        let bytes: u64 = all.by_label.values().map(|it| it.bytes).sum();
        assert_eq!(
            bytes,
            (6 * MAX_SCOPES as u64 + 1) * 10,
            "nothing is left out"
        );
        let pods = all.by_label["pods"];
        assert_eq!((pods.scopes, pods.limit), (200, Some(20_000)));
        assert_eq!(all.by_label["group-0"].limit, Some(100));
    }

    #[test]
    fn buckets_of_a_histogram_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let root = reaper_state::StateRoot::new(folder.path());
        let mut of = Metrics::open(&root).unwrap().operations().remove(1);
        of.durations[0].1 = 2;
        of.durations[2].1 = 3;
        of.longer = 1;
        of.total = Duration::from_millis(6500);
        let mut text = Exposition::default();
        write_durations("d", &of, &mut text);
        let text = text.text();
        for line in [
            r#"d_bucket{operation="start",le="0.001"} 2"#,
            r#"d_bucket{operation="start",le="0.0025"} 2"#,
            r#"d_bucket{operation="start",le="0.005"} 5"#,
            r#"d_bucket{operation="start",le="5"} 5"#,
            r#"d_bucket{operation="start",le="+Inf"} 6"#,
            r#"d_sum{operation="start"} 6.5"#,
            r#"d_count{operation="start"} 6"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
