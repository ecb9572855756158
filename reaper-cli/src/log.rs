//! Log messages in the form that engines read.
//!
//! podman, conmon and containerd's runc shim look for the last line with `"level":"error"` in
//! the file that they named by `--log`, and show its `msg`.

use std::{
    fmt,
    fs::{File, OpenOptions},
    path::Path,
    sync::Arc,
};

use reaper_spec::{Config, Timestamp};
use tracing::{Event, Level, Subscriber, field};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{
    args::{GlobalArgs, LogFormat},
    error::{Error, Result},
};

/// The target of events that are printed on stderr anyway: only a file needs them.
pub(crate) const PRINTED: &str = "printed";

/// Starts logging as the options and the configuration say. Without either only warnings are
/// printed, on stderr.
pub(crate) fn start(global: &GlobalArgs, config: &Config) -> Result<()> {
    let default = if global.debug {
        LevelFilter::DEBUG
    } else {
        LevelFilter::INFO
    };
    let file = global.log.as_deref().or(config.log.runtime.as_deref());
    let lines = Lines {
        format: global.log_format,
        printed: file.is_some(),
    };
    match file {
        Some(path) => {
            let file = Arc::new(append(path)?);
            let builder = tracing_subscriber::fmt()
                .log_internal_errors(false)
                .event_format(lines)
                .with_writer(file);
            match config.log.level.as_deref().filter(|_| !global.debug) {
                Some(level) => builder.with_env_filter(filter(level)?).init(),
                None => builder.with_max_level(default).init(),
            }
        }
        None => {
            let level = if global.debug {
                LevelFilter::DEBUG
            } else {
                LevelFilter::WARN
            };
            tracing_subscriber::fmt()
                // They would be printed to stderr, with a panic where that cannot be written.
                .log_internal_errors(false)
                .event_format(lines)
                .with_writer(std::io::stderr)
                .with_max_level(level)
                .init();
        }
    }
    Ok(())
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .map_err(Error::io(format!("open the log file {}", path.display())))
}

fn filter(level: &str) -> Result<EnvFilter> {
    EnvFilter::try_new(level).map_err(|error| Error::Option {
        option: "log.level",
        problem: error.to_string(),
    })
}

/// One line an event: logrus's text or JSON.
struct Lines {
    format: LogFormat,
    /// Whether [`PRINTED`] events are written.
    printed: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !self.printed && event.metadata().target() == PRINTED {
            return Ok(());
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let line = line(
            self.format,
            *event.metadata().level(),
            &message.0,
            Timestamp::now(),
        );
        writeln!(writer, "{line}")
    }
}

fn line(format: LogFormat, level: Level, message: &str, time: Timestamp) -> String {
    let level = match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    match format {
        LogFormat::Json => {
            serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
        }
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}"),
    }
}

/// An event's message, with its fields behind it.
struct Message(String);

impl field::Visit for Message {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        let written = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_find_level_msg_and_time() {
        let time = Timestamp::from(std::time::UNIX_EPOCH);
        assert_eq!(
            line(LogFormat::Json, Level::ERROR, "a \"b\"\nc", time),
            r#"{"level":"error","msg":"a \"b\"\nc","time":"1970-01-01T00:00:00.000000000Z"}"#
        );
        assert_eq!(
            line(LogFormat::Text, Level::WARN, "a \"b\"", time),
            r#"time="1970-01-01T00:00:00.000000000Z" level=warning msg="a \"b\"""#
        );
    }
}
