//! The environment of a process: the spec's, and `HOME` and `TERM` where it has none.

use std::fs;

use nix::unistd::getuid;
use reaper_spec::ProcessSpec;

/// The whole environment of `process`, as `KEY=VALUE`, with what the view adds.
///
/// It is called in the process's view of the filesystem, whose `/etc/passwd` has its passwd.
pub(super) fn environment(process: &ProcessSpec, view: &[String]) -> Vec<String> {
    let mut environment = process.env.clone();
    environment.extend(view.iter().cloned());
    if !has(&environment, "HOME") {
        let uid = process
            .user
            .as_ref()
            .map_or_else(|| getuid().as_raw(), |user| user.uid);
        let home = fs::read("/etc/passwd")
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
    environment
        .iter()
        .any(|entry| entry.split_once('=').is_some_and(|(name, _)| name == key))
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
    fn home_is_found_by_uid_among_odd_lines() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\n\xff\xfe\n+nis\nbroken:x:7\n\
            low:x:7:7::/srv/low:/bin/sh\nnone:x:8:8:::/bin/sh\n";
        assert_eq!(home(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home(passwd, 7).as_deref(), Some("/srv/low"));
        assert_eq!(home(passwd, 8), None);
        assert_eq!(home(passwd, 9), None);
    }
}
