//! `containerd-shim-reaper-v2`: containers as processes of the node.

use std::process::ExitCode;

use reaper_exec::{HostExecutor, io::StandardBinder, monitor};
use reaper_overlay::Configured;
use reaper_shim::{Backend, Shim};

fn main() -> ExitCode {
    monitor::run_if_asked(|| monitor::Setup::new(Configured::default(), StandardBinder::new()));
    Shim::new("io.containerd.reaper.v2", |context| {
        let executor = HostExecutor::new(context.root.clone())
            .in_namespace(&context.namespace)
            .is_subreaper(true);
        let store = reaper_state::open(context.config.store, &context.root)?;
        Ok(Backend { executor, store })
    })
    .run()
}
