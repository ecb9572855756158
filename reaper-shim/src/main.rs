//! `containerd-shim-reaper-v2`: containers as processes of the node.

use std::{process::ExitCode, sync::Arc};

use reaper_exec::{HostExecutor, io::StandardBinder, monitor};
use reaper_overlay::Configured;
use reaper_shim::{Backend, Shim};
use reaper_spec::StoreKind;
use reaper_state::FileStore;

fn main() -> ExitCode {
    monitor::run_if_asked(|| monitor::Setup::new(Configured::default(), StandardBinder::new()));
    Shim::new("io.containerd.reaper.v2", |context| {
        let executor = HostExecutor::new(context.root.clone())
            .in_namespace(&context.namespace)
            .is_subreaper(true);
        let store = match context.config.store {
            StoreKind::File => FileStore::new(context.root.clone()),
            other => return Err(format!("this shim was built without the store {other:?}").into()),
        };
        Ok(Backend {
            executor,
            store: Arc::new(store),
        })
    })
    .run()
}
