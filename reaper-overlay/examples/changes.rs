//! Runs a command over an overlay of `/`, then shows what it changed:
//! `changes sh -c 'echo hi >/etc/motd'`, The host stays as it is.

use std::{error::Error, process::Command};

use reaper_overlay::{Overlays, Scope, SharedOverlay, ViewRequest, run_in};
use reaper_spec::{ContainerId, OverlayScope};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments
        .next()
        .ok_or("usage: changes PROGRAM [ARGUMENT…]")?;
    let mut command = Command::new(program);
    command.args(arguments);

    let id = ContainerId::new(format!("changes-{}", std::process::id()))?;
    let mut request = ViewRequest::new(id, std::env::current_dir()?);
    request.overlay.scope = OverlayScope::Container;
    // For trying it without touching the node's overlays.
    if let Some(base) = std::env::var_os("REAPER_OVERLAY_BASE") {
        request.overlay.base = base.into();
    }

    let status = run_in(&SharedOverlay::new(), &request, command)?;
    let overlays = Overlays::new(&request.overlay);
    let scope = Scope::of(&request)?;
    for change in overlays.diff(&scope, &mut |_| ())? {
        println!("{change}");
        if let Some(text) = change.text()? {
            print!("{text}");
        }
    }
    overlays.remove(&scope)?;
    std::process::exit(status.code().unwrap_or(1));
}
