//! `spec`.

use std::{fs::OpenOptions, io::Write, path::Path};

use reaper_spec::OCI_VERSION;
use serde_json::json;

use crate::{
    args::SpecArgs,
    error::{Error, Result},
    outcome::ExitAction,
};

pub(crate) fn run(args: &SpecArgs) -> Result<ExitAction> {
    let folder = args.bundle.as_deref().unwrap_or(Path::new("."));
    let path = folder.join("config.json");
    let starter = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": false,
            "args": ["/bin/sh", "-c", "echo \"hello from $(hostname), as $(id -un)\""],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
        },
        "annotations": {},
    });
    let failed = || Error::io(format!("write {}", path.display()));
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists(path));
        }
        opened => opened.map_err(failed())?,
    };
    writeln!(file, "{starter:#}").map_err(failed())?;
    Ok(ExitAction::DONE)
}
