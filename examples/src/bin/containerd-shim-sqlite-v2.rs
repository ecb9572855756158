//! A shim whose state is in a SQLite database instead of a file for each container: one line
//! differs from Reaper's own.
//!
//! Put the program beside `containerd-shim-reaper-v2` and name the runtime
//! `io.containerd.sqlite.v2`. The shims of all pods, and whoever asks, share the database.

use std::{env, path::PathBuf, process::ExitCode, sync::Arc};

use reaper_exec::{HostExecutor, io::StandardBinder, monitor};
use reaper_overlay::Configured;
use reaper_shim::{Runtime, Shim};
use reaper_state::SqliteStore;

fn main() -> ExitCode {
    monitor::run_if_monitor(|| {
        monitor::MonitorConfig::new(Configured::default(), StandardBinder::new())
    });
    Shim::new("io.containerd.sqlite.v2", |context| {
        // Each of containerd's namespaces has ids, and so a database, of its own.
        let folder =
            env::var_os("REAPER_SQLITE_FOLDER").unwrap_or_else(|| "/run/shim-sqlite".into());
        let database = PathBuf::from(folder).join(format!("{}.db", context.namespace));
        let executor = HostExecutor::new(context.root.clone())
            .containerd_namespace(&context.namespace)
            .subreaper(true);
        Ok(Runtime::new(executor, Arc::new(SqliteStore::new(database))))
    })
    .run()
}
