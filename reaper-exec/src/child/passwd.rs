//! The environment of a process: the spec's, and what it leaves to the runtime.
//!
//! `HOME` and `TERM` where it has none, and `LISTEN_PID` where it is handed sockets: that is the
//! pid of the process that they are for (sd_listen_fds(3)), which only the process itself knows.

use std::path::Path;

use nix::unistd::getuid;
use reaper_overlay::in_view;
use reaper_spec::ProcessSpec;

/// More than any passwd(5) file has: what is read there is the workload's to choose.
const PASSWD_LIMIT: u64 = 16 << 20;

/// The whole environment of `process`, as `KEY=VALUE`, with what the view adds. `preserved` is the
/// number of descriptors that the process gets besides its streams.
///
/// It is called by the process, in its view of the filesystem, whose `/etc/passwd` has its user.
pub(super) fn environment(process: &ProcessSpec, view: &[String], preserved: usize) -> Vec<String> {
    let mut environment = process.env.clone();
    environment.extend(view.iter().cloned());
    if preserved > 0 && has(&environment, "LISTEN_FDS") {
        environment.retain(|entry| !entry.starts_with("LISTEN_PID="));
        environment.push(format!("LISTEN_PID={}", std::process::id()));
    }
    // An empty one is as none, as with runc.
    if !has_text(&environment, "HOME") {
        environment.retain(|entry| entry != "HOME=");
        let uid = process
            .user
            .as_ref()
            .map_or_else(|| getuid().as_raw(), |user| user.uid);
        let home = in_view::read(Path::new("/etc/passwd"), PASSWD_LIMIT)
            .ok()
            .and_then(|passwd| home(&passwd, uid));
        environment.push(format!("HOME={}", home.as_deref().unwrap_or("/")));
    }
    if process.terminal && !has(&environment, "TERM") {
        environment.push("TERM=xterm".to_owned());
    }
    environment
}

fn has(environment: &[String], key: &str) -> bool {
    values(environment, key).next().is_some()
}

fn has_text(environment: &[String], key: &str) -> bool {
    values(environment, key).any(|value| !value.is_empty())
}

fn values<'a>(environment: &'a [String], key: &'a str) -> impl Iterator<Item = &'a str> {
    environment
        .iter()
        .filter_map(|entry| entry.split_once('='))
        .filter_map(move |(name, value)| (name == key).then_some(value))
}

/// The home directory of `uid` in the text of a passwd(5) file. Name services other than files
/// are not asked: that would load code of the node into a static program.
fn home(passwd: &[u8], uid: u32) -> Option<String> {
    passwd.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = std::str::from_utf8(line).ok()?.split(':').skip(2);
        (fields.next()?.parse() == Ok(uid)).then_some(())?;
        let home = fields.nth(2)?;
        (!home.is_empty()).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_home_is_filled_and_sockets_are_for_the_process() {
        let mut process = ProcessSpec::new(["program"], "/").unwrap();
        process.env = ["HOME=", "LISTEN_FDS=1", "LISTEN_PID=7"]
            .map(str::to_owned)
            .into();
        let environment = environment(&process, &[], 1);
        let own = format!("LISTEN_PID={}", std::process::id());
        assert_eq!(environment[..2], ["LISTEN_FDS=1".to_owned(), own]);
        assert!(has_text(&environment, "HOME"), "{environment:?}");
        assert_eq!(environment.len(), 3);
    }

    #[test]
    fn home_is_found_by_uid_among_odd_lines() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\n\xff\xfe\n+nis\nbroken:x:7\n\
            low:x:7:7::/srv/low:/bin/sh\nnone:x:8:8:::/bin/sh\n";
        assert_eq!(home(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home(passwd, 7).as_deref(), Some("/srv/low"));
        assert_eq!(home(passwd, 8), None);
        assert_eq!(home(passwd, 9), None);
    }
}
