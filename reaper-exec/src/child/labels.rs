//! What security modules of the kernel confine the program by, from its execve(2) on.

use std::{fs, io, path::Path};

use reaper_spec::SecurityLabels;

use super::step::{Failed, Step as _};

pub(super) fn set(labels: &SecurityLabels) -> Result<(), Failed> {
    if let Some(profile) = &labels.apparmor_profile {
        apparmor(profile).step(format!("set the AppArmor profile {profile}"))?;
    }
    if let Some(label) = &labels.selinux_label {
        selinux(label).step(format!("set the SELinux label {label}"))?;
    }
    Ok(())
}

fn missing(module: &str) -> io::Error {
    io::Error::other(format!("{module} is not enabled on this node"))
}

fn apparmor(profile: &str) -> io::Result<()> {
    /// Linux 5.8, with other modules beside it; before, and where it is the only one.
    const FILES: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];
    let enabled = fs::read("/sys/module/apparmor/parameters/enabled");
    if !enabled.is_ok_and(|text| text.first() == Some(&b'Y')) {
        return match profile {
            // So it is.
            "unconfined" => Ok(()),
            _ => Err(missing("AppArmor")),
        };
    }
    let file = if Path::new(FILES[0]).exists() {
        FILES[0]
    } else {
        FILES[1]
    };
    fs::write(file, format!("exec {profile}")).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other("the kernel has no profile of this name"),
        _ => error,
    })
}

fn selinux(label: &str) -> io::Result<()> {
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(missing("SELinux"));
    }
    fs::write("/proc/self/attr/exec", label)
}
