//! The program that runs in the container of a trial: this one, since a node may have no shell.

use std::{
    env, fs,
    io::{self, Read, Write},
    path::Path,
    process,
};

/// The first argument. It is no interface for people.
pub(super) const ARGUMENT: &str = "--reaper-trial";
/// What is told when all is as it should be.
pub(super) const FINE: &str = "fine";
/// What is in the files.
pub(super) const CONTENT: &str = "trial\n";

/// Becomes a process of a trial, and never returns, if this program was started as one.
pub(crate) fn run_if_asked() {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(ARGUMENT) {
        return;
    }
    let role = arguments.next().unwrap_or_default();
    let [written, volume] = [arguments.next(), arguments.next()].map(Option::unwrap_or_default);
    let done = match role.as_str() {
        "init" => write(&written),
        _ => look(&written, &volume),
    };
    let told = match &done {
        Ok(()) => writeln!(io::stdout(), "{FINE}"),
        Err(wrong) => writeln!(io::stdout(), "{wrong}"),
    };
    if told.is_ok() && role == "init" {
        // Until it is killed, or the doctor that has the other end is gone.
        let _ = io::stdin().read_to_end(&mut Vec::new());
    }
    process::exit(i32::from(done.is_err()))
}

/// Writes a file that the node must not see.
fn write(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Ok(());
    }
    fs::write(path, CONTENT).map_err(|error| format!("write {path} in the view: {error}"))
}

/// Looks for what init wrote, and at a volume that is read-only.
fn look(written: &str, volume: &str) -> Result<(), String> {
    if !written.is_empty() {
        expect(Path::new(written))?;
    }
    if volume.is_empty() {
        return Ok(());
    }
    let volume = Path::new(volume);
    expect(&volume.join("file"))?;
    match fs::write(volume.join("file"), "changed\n") {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        Err(error) => Err(format!(
            "write to the read-only volume {}: {error}",
            volume.display()
        )),
        Ok(()) => Err(format!(
            "the volume {} should be read-only and can be written to",
            volume.display()
        )),
    }
}

fn expect(path: &Path) -> Result<(), String> {
    match fs::read_to_string(path) {
        Ok(content) if content == CONTENT => Ok(()),
        Ok(_) => Err(format!(
            "{} has another content in the view",
            path.display()
        )),
        Err(error) => Err(format!("read {} in the view: {error}", path.display())),
    }
}
