//! `containerd-shim-reaper-v2`: containers as processes of the node.

use std::{process::ExitCode, sync::Arc};

use reaper_exec::{Executor, HostExecutor, OciExecutor, io::StandardBinder, monitor};
use reaper_overlay::Configured;
use reaper_shim::{Runtime, Shim};

fn main() -> ExitCode {
    monitor::run_if_monitor(|| {
        monitor::MonitorConfig::new(Configured::default(), StandardBinder::new())
    });
    Shim::new("io.containerd.reaper.v2", |context| {
        let host = HostExecutor::new(context.root.clone())
            .containerd_namespace(&context.namespace)
            .subreaper(true);
        let executor: Arc<dyn Executor> = match &context.config.runtime_path {
            Some(runtime) => Arc::new(OciExecutor::new(host, runtime)),
            None => Arc::new(host),
        };
        let store = reaper_state::open(context.config.store, &context.root)?;
        Ok(Runtime::new(executor, store))
    })
    .run_pause_process(|config| config.runtime_path.is_some())
    .run()
}
