//! Prometheus' text format, version 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>. The crate prometheus-client writes OpenMetrics, whose
//! counters the textfile collector of node-exporter takes for metrics without a type.

use std::fmt::Write as _;

/// What a server says that it sends.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of metric a family is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Metrics as text.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// Begins the metrics of this name. Their samples have to follow at once.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample. `value` is a number as Rust writes it, which Prometheus reads.
    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl std::fmt::Display,
    ) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let labels = match &labels[..] {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_stay_in_their_label() {
        let mut text = Exposition::default();
        text.family("x_total", Kind::Counter, "One\nline \\ of help");
        text.sample("x_total", &[("a", "\"} 1\ny 2"), ("b", "\\n\\")], 3);
        text.sample("x_total", &[], 0.25);
        let expected = "# HELP x_total One\\nline \\\\ of help\n# TYPE x_total counter\n\
                        x_total{a=\"\\\"} 1\\ny 2\",b=\"\\\\n\\\\\"} 3\nx_total 0.25\n";
        assert_eq!(text.text(), expected);
    }
}
