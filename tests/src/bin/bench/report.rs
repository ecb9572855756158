//! Figures, and how they are shown.

use std::{fmt, fs, process::Command, time::Duration};

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Milliseconds,
    Kibibytes,
    GibibytesPerSecond,
    Count,
    Ratio,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Kibibytes if value < 1024.0 => format!("{value:.0} KiB"),
            Self::Kibibytes => format!("{:.2} MiB", value / 1024.0),
            Self::GibibytesPerSecond => format!("{value:.2} GiB/s"),
            Self::Count => format!("{value:.0}"),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

/// Samples of one figure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds another run's samples.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Takes a duration down in milliseconds.
    pub(crate) fn push_time(&mut self, duration: Duration) {
        self.push(duration.as_secs_f64() * 1000.0);
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// The sample below which this part of them lies.
    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "a figure without samples");
        let last = (sorted.len() - 1) as f64;
        sorted[(last * part).round() as usize]
    }
}

impl From<f64> for Samples {
    fn from(value: f64) -> Self {
        Self(vec![value])
    }
}

/// One line of a table.
#[derive(Debug)]
struct Row {
    what: String,
    value: f64,
    unit: Unit,
    samples: Option<Samples>,
    at_most: Option<f64>,
}

/// What a measurement has found.
#[derive(Debug)]
pub(crate) struct Report {
    title: String,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            rows: Vec::new(),
        }
    }

    /// Adds the median of samples.
    pub(crate) fn figure(&mut self, what: &str, unit: Unit, samples: impl Into<Samples>) {
        let samples = samples.into();
        self.rows.push(Row {
            what: what.to_owned(),
            value: samples.median(),
            unit,
            samples: Some(samples),
            at_most: None,
        });
    }

    /// Adds how many times `base` the figure `of` is, by their medians.
    pub(crate) fn ratio(&mut self, what: &str, of: &Samples, base: &Samples) {
        let (what, value) = (what.to_owned(), of.median() / base.median());
        self.rows.push(Row {
            what,
            value,
            unit: Unit::Ratio,
            samples: None,
            at_most: None,
        });
    }

    /// Says what the last figure is to be at most, in its own unit.
    pub(crate) fn goal(&mut self, at_most: f64) {
        if let Some(row) = self.rows.last_mut() {
            row.at_most = Some(at_most);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| | median | 10 %–90 % | samples | goal |")?;
        writeln!(f, "|---|---|---|---|---|")?;
        for row in &self.rows {
            let (spread, count) = match &row.samples {
                Some(samples) if samples.0.len() > 1 => {
                    let [low, high] = [0.1, 0.9].map(|part| row.unit.show(samples.quantile(part)));
                    (format!("{low} – {high}"), samples.0.len().to_string())
                }
                Some(_) => (String::new(), "1".to_owned()),
                None => Default::default(),
            };
            let goal = row.at_most.map_or_else(String::new, |limit| {
                let verdict = if row.value <= limit {
                    "reached"
                } else {
                    "**not reached**"
                };
                let limit = match row.unit {
                    Unit::Ratio => limit.to_string(),
                    unit => unit.show(limit),
                };
                format!("≤ {limit}: {verdict}")
            });
            let (what, value) = (&row.what, row.unit.show(row.value));
            writeln!(f, "| {what} | {value} | {spread} | {count} | {goal} |")?;
        }
        Ok(())
    }
}

/// What was measured on.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let model = fs::read_to_string("/proc/cpuinfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(
            || std::env::consts::ARCH.to_owned(),
            |(_, name)| name.trim().to_owned(),
        );
    let versions: Vec<String> = ["runc", "crun"]
        .map(version)
        .into_iter()
        .flatten()
        .collect();
    format!(
        "Linux {}, {cpus} × {model}; {}.\n",
        kernel.trim(),
        versions.join(", ")
    )
}

fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()?
            .to_owned(),
    )
}
