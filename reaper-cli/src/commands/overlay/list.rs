//! `overlay ls` and `overlay du`.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use reaper_overlay::{Error as OverlayError, Overlays, Scope, ScopeInfo, Unmounted, Usage};
use serde::Serialize;

use super::{each::each, progress::Progress};
use crate::{
    args::Output,
    colours::Colours,
    commands::{
        output::{print, print_json, remark, size},
        table::print_plain,
    },
    container::PodNames,
    error::Result,
    text::printable,
};

/// One scope, for programs.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    files: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    created: String,
    last_used: String,
    members: Vec<String>,
    /// The members that are of Kubernetes, with what they are there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pods: BTreeMap<String, PodNames>,
    mounted: bool,
    read_only: Vec<String>,
    unprotected: Vec<String>,
    changed_below: Vec<String>,
    unmounted: Vec<HeldFilesystem>,
}

/// A filesystem that a scope keeps in use though it was unmounted, for programs.
#[derive(Debug, Serialize)]
struct HeldFilesystem {
    mount_point: String,
    /// `major:minor`.
    device: String,
}

pub(super) fn list(
    overlays: &Overlays,
    output: Output,
    colours: Colours,
    pod_of: &dyn Fn(&str) -> Option<PodNames>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut listed = Vec::new();
    let mut progress = Progress::of_unknown("looking at");
    let scopes = overlays.scopes()?;
    let looked = each(&scopes, "looked at", false, |scope| {
        if let Some(info) = overlays.inspect(scope)? {
            let usage = overlays.disk_usage(scope, &mut |seen| progress.show(&seen))?;
            listed.push((info, usage));
        }
        Ok(())
    });
    drop(progress);
    if output.json {
        let listed = listed.into_iter();
        let listed: Vec<_> = listed
            .map(|(info, usage)| for_programs(info, &usage, pod_of))
            .collect();
        print_json(out, &listed)?;
    } else {
        let rows: Vec<_> = listed.iter().map(|listed| row(listed, pod_of)).collect();
        let head = ["NAME", "SIZE", "AGE", "MEMBERS", "NOTES"];
        print_plain(out, colours, &head, &rows)?;
    }
    let left = overlays.left_over()?;
    if left.files > 0 {
        remark(&format!(
            "{} of removed overlays are still there, since their removal was interrupted: \
             `reaper-runtime prune` removes them",
            size(left.bytes)
        ));
    }
    looked
}

fn row(
    (info, usage): &(ScopeInfo, Usage),
    pod_of: &dyn Fn(&str) -> Option<PodNames>,
) -> [String; 5] {
    let member = |id: &String| match pod_of(id) {
        Some(names) => format!("{id} ({})", names.line()),
        None => id.clone(),
    };
    let members = match info.members.as_slice() {
        [] => "-".to_owned(),
        members => members.iter().map(member).collect::<Vec<_>>().join(", "),
    };
    let mut notes = Vec::new();
    if !info.mounted {
        notes.push("not mounted until its next member".to_owned());
    }
    if !info.read_only.is_empty() {
        notes.push(format!("read-only: {}", names(&info.read_only).join(", ")));
    }
    if !info.unprotected.is_empty() {
        let unprotected = names(&info.unprotected).join(", ");
        notes.push(format!("not protected: {unprotected}"));
    }
    if !info.changed_below.is_empty() {
        let changed = info.changed_below.join(", ");
        notes.push(format!("this machine changed below it: {changed}"));
    }
    if !info.unmounted.is_empty() {
        let held: Vec<_> = info.unmounted.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "keeps in use what this machine has unmounted: {}",
            held.join("; ")
        ));
    }
    [
        info.scope.to_string(),
        of_limit(usage.bytes, info.limit),
        age(info.created),
        members,
        notes.join("; "),
    ]
}

/// How much a scope holds, and of how much.
fn of_limit(bytes: u64, limit: Option<u64>) -> String {
    match limit {
        Some(limit) => format!("{} of {}", size(bytes), size(limit)),
        None => size(bytes),
    }
}

fn names(paths: &[PathBuf]) -> Vec<String> {
    let name = |path: &PathBuf| path.to_string_lossy().into_owned();
    paths.iter().map(name).collect()
}

fn for_programs(
    info: ScopeInfo,
    usage: &Usage,
    pod_of: &dyn Fn(&str) -> Option<PodNames>,
) -> Listed {
    let pods = pods(&info.members, pod_of);
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    Listed {
        name: info.scope.to_string(),
        files: usage.files,
        bytes: usage.bytes,
        limit: info.limit,
        created: time(info.created),
        last_used: time(info.last_used),
        members: info.members,
        pods,
        mounted: info.mounted,
        read_only: names(&info.read_only),
        unprotected: names(&info.unprotected),
        changed_below: info.changed_below,
        unmounted: info.unmounted.iter().map(held).collect(),
    }
}

fn pods(
    members: &[String],
    pod_of: &dyn Fn(&str) -> Option<PodNames>,
) -> BTreeMap<String, PodNames> {
    let members = members.iter();
    let named = members.filter_map(|id| Some((id.clone(), pod_of(id)?)));
    named.collect()
}

fn held(filesystem: &Unmounted) -> HeldFilesystem {
    let (major, minor) = filesystem.device;
    HeldFilesystem {
        mount_point: filesystem.mount_point.to_string_lossy().into_owned(),
        device: format!("{major}:{minor}"),
    }
}

/// How much one scope holds, for programs.
#[derive(Debug, Serialize)]
struct Used {
    name: String,
    files: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    /// The members that are of Kubernetes, with what they are there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pods: BTreeMap<String, PodNames>,
}

pub(super) fn usage(
    overlays: &Overlays,
    scopes: &[Scope],
    output: Output,
    pod_of: &dyn Fn(&str) -> Option<PodNames>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut used = Vec::new();
    let mut progress = Progress::of_unknown("looking at");
    let mut look = |scope: &Scope| -> Result<(), OverlayError> {
        let usage = overlays.disk_usage(scope, &mut |seen| progress.show(&seen))?;
        let info = overlays.inspect(scope)?;
        used.push(Used {
            name: scope.to_string(),
            files: usage.files,
            bytes: usage.bytes,
            limit: info.as_ref().and_then(|info| info.limit),
            pods: info
                .map(|info| pods(&info.members, pod_of))
                .unwrap_or_default(),
        });
        Ok(())
    };
    let looked = match scopes {
        [] => each(&overlays.scopes()?, "looked at", false, look),
        // Its error is the command's, with the way out.
        [scope] => Ok(look(scope)?),
        scopes => each(scopes, "looked at", true, look),
    };
    drop(progress);
    if output.json {
        print_json(out, &used)?;
        return looked;
    }
    for used in used {
        let size = of_limit(used.bytes, used.limit);
        let lines: Vec<_> = used.pods.values().map(PodNames::line).collect();
        let members = match lines[..] {
            [] => String::new(),
            _ => format!("\t{}", printable(&lines.join(", "))),
        };
        print(
            out,
            format_args!("{size}\t{} files\t{}{members}\n", used.files, used.name),
        )?;
    }
    looked
}

/// How long ago something was, in its largest unit. A clock that was set back makes it now.
fn age(then: SystemTime) -> String {
    let elapsed = SystemTime::now().duration_since(then).unwrap_or_default();
    coarse(elapsed)
}

fn coarse(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let ages = [0, 59, 60, 7199, 172_799, 172_800].map(|s| coarse(Duration::from_secs(s)));
        assert_eq!(ages, ["0s", "59s", "1m", "1h", "47h", "2d"]);
    }
}
