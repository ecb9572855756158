//! Transcripts, run again.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use reaper_tests::suite::reaper_bin;

use crate::pages::{Block, prompted};

/// What stands between the outputs of two commands.
const MARK: &str = "@@ next @@";

/// Runs the commands of a block in one shell, in a folder and in mounts of its own, and compares
/// what they print. `…` stands for anything.
pub(crate) fn replay(block: &Block) -> Result<(), String> {
    // On /run, which a workload sees as it is.
    let folder = tempfile::tempdir_in("/run").expect("make a folder");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("work")).expect("make a folder");
    fs::write(path("config.toml"), "").expect("write a configuration");
    fs::write(path("script"), script(block)).expect("write a script");
    let output = File::create(path("output")).expect("make a file");
    let mut paths = vec![reaper_bin()];
    paths.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    // The output goes to a file, as what is started may keep it for longer than the shell.
    let status = Command::new("timeout")
        .args(["-s", "KILL", "300", "unshare", "--mount", "bash"])
        .arg(path("script"))
        .current_dir(path("work"))
        .env("PATH", std::env::join_paths(paths).expect("a PATH"))
        .env("LC_ALL", "C")
        .env("PRIVATE", folder.path())
        .env("REAPER_CONFIG", path("config.toml"))
        .env("REAPER_RUNTIME_ROOT", path("state"))
        .env("REAPER_OVERLAY_BASE", path("overlay"))
        .stdin(Stdio::null())
        .stderr(output.try_clone().expect("a second descriptor"))
        .stdout(output)
        .status()
        .expect("run a shell");
    let printed = fs::read_to_string(path("output")).expect("read the output");
    compare(block, &printed).map_err(|difference| format!("{difference}\n({status})"))
}

/// The shell's script. `$?` is the last command's, as it is for a person at a prompt.
fn script(block: &Block) -> String {
    let mut script = String::from(
        // What a transcript makes of the machine's own files stays here.
        "mount --make-rprivate /\n\
         mount -t tmpfs none /opt\n\
         mkdir \"$PRIVATE/etc\" && cp -a /etc/. \"$PRIVATE/etc\" && mount --bind \"$PRIVATE/etc\" /etc\n\
         status=0\n",
    );
    for command in block.commands() {
        script.push_str(&format!(
            "echo '{MARK}'\n(exit $status)\n{command}\nstatus=$?\n"
        ));
    }
    script
}

fn compare(block: &Block, printed: &str) -> Result<(), String> {
    let mut wanted: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in block.text.lines() {
        match (prompted(line), wanted.last_mut()) {
            (Some(command), _) => wanted.push((command, Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => return Err(format!("{line:?} is before any command")),
        }
    }
    let mark = format!("{MARK}\n");
    let mut outputs = printed.split(&mark);
    let before = outputs.next().unwrap_or_default();
    if !before.is_empty() {
        return Err(format!("the mounts could not be made: {before}"));
    }
    for (command, lines) in wanted {
        let output = outputs.next().ok_or(format!("{command} was not run"))?;
        let found: Vec<&str> = output.lines().collect();
        let same = found.len() == lines.len()
            && lines
                .iter()
                .zip(&found)
                .all(|(line, found)| fits(line, found));
        if !same {
            return Err(format!(
                "{command}\nis to print\n{}\nand prints\n{output}",
                lines.join("\n")
            ));
        }
    }
    Ok(())
}

/// Whether a line is as written, with anything in the place of `…`.
fn fits(written: &str, line: &str) -> bool {
    let mut parts = written.trim_end().split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.trim_end().strip_prefix(first) else {
        return false;
    };
    let mut last = first;
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
        (last, open) = (part, true);
    }
    rest.is_empty() || open && last.is_empty()
}
