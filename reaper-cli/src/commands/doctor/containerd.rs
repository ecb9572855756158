//! Whether containerd is here and knows the runtime.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::finding::CheckResult;

const SHIM: &str = "containerd-shim-reaper-v2";
const RUNTIME_TYPE: &str = "io.containerd.reaper.v2";

pub(super) fn examine() -> Vec<CheckResult> {
    let Some(version) = output(&["--version"]) else {
        let found = "not installed here: only this program runs containers";
        return vec![CheckResult::good("containerd", found)];
    };
    let mut findings = vec![
        daemon(&version),
        shim(&env::var_os("PATH").unwrap_or_default()),
    ];
    findings.extend(output(&["config", "dump"]).map(|config| handler(&config)));
    findings
}

/// What containerd prints. Without it, or where it fails, nothing.
fn output(args: &[&str]) -> Option<String> {
    let output = Command::new("containerd")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// `containerd NAME VERSION COMMIT`
fn daemon(answer: &str) -> CheckResult {
    let version = answer.split_whitespace().nth(2).unwrap_or_default();
    let mut numbers = version
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (1, 6) => {
            CheckResult::good("containerd", version)
        }
        (Some(_), Some(_)) => CheckResult::warning("containerd", version, "the shim needs 1.6"),
        _ => CheckResult::warning(
            "containerd",
            format!("an unknown version: {}", answer.trim()),
            "the shim is made for 1.6, 1.7 and 2.x",
        ),
    }
}

fn shim(path: &std::ffi::OsStr) -> CheckResult {
    let found: Option<PathBuf> = env::split_paths(path)
        .map(|dir| dir.join(SHIM))
        .find(|file| file.is_file());
    match found {
        Some(file) => CheckResult::good("shim", file.display().to_string()),
        None => CheckResult::warning(
            "shim",
            format!("no {SHIM} in the PATH"),
            format!(
                "install it where containerd finds it: `install -m 755 {SHIM} /usr/local/bin/`"
            ),
        ),
    }
}

/// Whether a configuration, as containerd prints it, names the runtime.
fn handler(config: &str) -> CheckResult {
    let names_it = config.lines().any(|line| {
        line.split_once('=').is_some_and(|(key, value)| {
            key.trim() == "runtime_type" && value.trim().trim_matches(['"', '\'']) == RUNTIME_TYPE
        })
    });
    if names_it {
        return CheckResult::good("handler", format!("containerd's config has {RUNTIME_TYPE}"));
    }
    let version = config.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "version").then(|| value.trim().to_owned())
    });
    let plugin = match version.as_deref() {
        Some("3") => "'io.containerd.cri.v1.runtime'",
        _ => "\"io.containerd.grpc.v1.cri\"",
    };
    CheckResult::warning(
        "handler",
        format!("containerd's config has no runtime of type {RUNTIME_TYPE}"),
        format!(
            "for Kubernetes add to {}: [plugins.{plugin}.containerd.runtimes.reaper-v2] with \
             runtime_type = \"{RUNTIME_TYPE}\", and restart containerd",
            Path::new("/etc/containerd/config.toml").display()
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn versions_are_read() {
        let level = |answer| daemon(answer).level;
        assert_eq!(level("containerd github.com/x/y v1.7.2 abc\n"), Level::Good);
        assert_eq!(
            level("containerd github.com/x/y 1.6.20~ds1 1.6.20\n"),
            Level::Good
        );
        assert_eq!(
            level("containerd github.com/x/y v2.1.0-rc.1 abc"),
            Level::Good
        );
        assert_eq!(level("containerd github.com/x/y 1.5.9 abc"), Level::Warning);
        assert_eq!(level("something else"), Level::Warning);
    }

    #[test]
    fn the_handler_is_found_in_either_form() {
        let old = "version = 2\n  runtime_type = \"io.containerd.reaper.v2\"\n";
        assert_eq!(handler(old).level, Level::Good);
        let new = "version = 3\n  runtime_type = 'io.containerd.reaper.v2'\n";
        assert_eq!(handler(new).level, Level::Good);
        let other = handler("version = 3\n  runtime_type = 'io.containerd.runc.v2'\n");
        assert_eq!(other.level, Level::Warning);
        assert!(other.fix.unwrap().contains("io.containerd.cri.v1.runtime"));
        assert!(handler("version = 2").fix.unwrap().contains("grpc.v1.cri"));
    }

    #[test]
    fn the_shim_is_looked_for_where_containerd_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = env::join_paths(["/nowhere".as_ref(), dir.path()]).unwrap();
        assert_eq!(shim(&path).level, Level::Warning);
        std::fs::write(dir.path().join(SHIM), "").unwrap();
        assert_eq!(shim(&path).level, Level::Good);
    }
}
