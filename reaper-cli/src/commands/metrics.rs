//! `metrics`.

mod collect;
mod server;
mod text;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{context::CommandContext, output::print};
use crate::{
    args::MetricsArgs,
    error::{Error, Result},
    outcome::ExitAction,
};

pub(crate) async fn run(
    call: &CommandContext,
    args: &MetricsArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    if let Some(listen) = &args.listen {
        if listen.is_public() && !args.public {
            return Err(Error::Option {
                option: "--listen",
                problem: "other machines could connect to that address: add --public if they may read the \
                          names of scopes, or name a port alone"
                    .to_owned(),
            });
        }
        return server::serve(call, listen).await;
    }
    let text = collect::collect(call).await?;
    let Some(path) = &args.output else {
        print(out, format_args!("{text}"))?;
        return Ok(ExitAction::DONE);
    };
    replace(path, &text).map_err(Error::io(format!("write {}", path.display())))?;
    Ok(ExitAction::DONE)
}

/// Replaces the file as a whole: node-exporter may read it at any time. It runs as a user of its own, which
/// may read it, and reads every file of the directory whose name ends in `.prom`.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.tmp", std::process::id()));
    let staged = Path::new(&staged);
    // Of a process that had this number, and was killed.
    let _ = fs::remove_file(staged);
    let mut options = OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(staged)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(staged, path));
    if written.is_err() {
        let _ = fs::remove_file(staged);
    }
    written
}
