//! The handlers as text.
//!
//! They are appended as one block between two comments, so that no other byte of a file changes, and are
//! taken out as that block. Where its comments are lost, as after `containerd config migrate`, the tables are
//! taken out by name.

use toml_edit::{DocumentMut, Item, TableLike};

use super::layout::{Form, Target, parse};
use crate::commands::containerd::{PLUGINS, RUNTIME_TYPE};

/// The runtime classes that are installed.
pub(super) const CLASSES: [&str; 2] = ["reaper-v2", "reaper-v2-pod"];
/// What the second of them has beside the node's configuration.
pub(super) const POD_OPTIONS: &str = "/etc/reaper/reaper-v2-pod.toml";
/// What is in that file.
pub(super) const POD_OPTIONS_TEXT: &str = "\
# Made by `reaper-runtime node install`, which restores it: what pods of the class reaper-v2-pod have in
# addition to /etc/reaper/config.toml.
pid = \"private\"

[overlay]
scope = \"pod\"
";

/// The runtime that containerd has by default, and its type.
const RUNC: (&str, &str) = ("runc", "io.containerd.runc.v2");
const BEGIN: &str =
    "# >>> Made by `reaper-runtime node install`, which restores what is changed here.";
const END: &str = "# <<< reaper-runtime node install";

/// The CRI's plugin in configurations of this version.
fn plugin(version: i64) -> &'static str {
    match version {
        ..3 => PLUGINS[1],
        _ => PLUGINS[0],
    }
}

/// What a file has that is made for the handlers alone.
pub(super) fn base(target: &Target) -> String {
    match target.form {
        Form::Template => "{{ template \"base\" . }}\n".to_owned(),
        _ => format!("version = {}\n", target.version),
    }
}

/// `original` with those handlers that it lacks.
pub(super) fn with_handlers(original: Option<&str>, target: &Target) -> Result<String, String> {
    let shown = target.path.display();
    let mut text = match original {
        Some(original) => original.to_owned(),
        None => base(target),
    };
    let mut missing = missing(&text, target)?;
    if missing.is_empty() {
        return Ok(text);
    }
    if target.form == Form::Main && target.replaces_runc {
        let document = parse(&text).map_err(|error| error.to_string())?;
        if runtimes(&document, target).is_none() {
            missing.insert(0, RUNC.0);
        }
    }
    // Of an empty configuration, or one of comments alone, the version would be 1.
    let with_version =
        target.form != Form::Template && parse(&text).is_ok_and(|document| document.is_empty());
    if !text.is_empty() {
        text += if text.ends_with('\n') { "\n" } else { "\n\n" };
    }
    text += &block(&missing, target, with_version);
    finished(text, target).map_err(|problem| {
        format!("the handlers cannot be added to {shown}, add them by hand: {problem}")
    })
}

/// The text, if it is what it is to be.
fn finished(text: String, target: &Target) -> Result<String, String> {
    if target.form == Form::Template {
        return Ok(text);
    }
    // Tables that are written in one line cannot be added to from elsewhere.
    parse(&text).map_err(|error| error.to_string().trim_end().to_owned())?;
    Ok(text)
}

/// The classes that `text` has no handler for.
pub(super) fn missing(text: &str, target: &Target) -> Result<Vec<&'static str>, String> {
    if target.form == Form::Template {
        let has = |class: &str| {
            let end = format!(".runtimes.{class}]");
            let quoted = format!(".runtimes.\"{class}\"]");
            let mut lines = text.lines().map(str::trim);
            lines.any(|line| {
                line.starts_with('[') && (line.ends_with(&end) || line.ends_with(&quoted))
            })
        };
        return Ok(CLASSES.into_iter().filter(|class| !has(class)).collect());
    }
    let document = parse(text).map_err(|error| error.to_string())?;
    let mut missing = Vec::new();
    for class in CLASSES {
        let runtime = runtimes(&document, target).and_then(|runtimes| runtimes.get(class));
        match runtime.map(|runtime| runtime.get("runtime_type").and_then(Item::as_str)) {
            None => missing.push(class),
            Some(Some(RUNTIME_TYPE)) => {}
            Some(other) => {
                return Err(format!(
                    "{} has a runtime {class} that is another's, of type {}: rename it",
                    target.path.display(),
                    other.unwrap_or("none")
                ));
            }
        }
    }
    Ok(missing)
}

fn runtimes<'a>(document: &'a DocumentMut, target: &Target) -> Option<&'a dyn TableLike> {
    let plugin = document.get("plugins")?.get(plugin(target.version))?;
    plugin.get("containerd")?.get("runtimes")?.as_table_like()
}

fn block(classes: &[&str], target: &Target, with_version: bool) -> String {
    let runtimes = format!("plugins.\"{}\".containerd.runtimes", plugin(target.version));
    let mut text = format!("{BEGIN}\n");
    if with_version {
        text += &base(target);
    }
    for class in classes {
        if *class == RUNC.0 {
            text += &format!("[{runtimes}.{class}]\n  runtime_type = \"{}\"\n", RUNC.1);
            continue;
        }
        text += &format!(
            "[{runtimes}.{class}]\n  runtime_type = \"{RUNTIME_TYPE}\"\n  \
             pod_annotations = [\"reaper.runtime/*\"]\n  \
             container_annotations = [\"reaper.runtime/*\"]\n"
        );
        if *class == CLASSES[1] {
            text += &format!(
                "  [{runtimes}.{class}.options]\n    TypeUrl = \"runtimeoptions.v1.Options\"\n    \
                 ConfigPath = \"{POD_OPTIONS}\"\n"
            );
        }
    }
    text + END + "\n"
}

/// `text` without what [`with_handlers`] added: the block, or the handlers of the classes `added`.
pub(super) fn without_handlers(text: &str, target: &Target, added: &[String]) -> String {
    match without_block(text) {
        Some(rest) => rest,
        None if target.form == Form::Template => text.to_owned(),
        None => without_tables(text, target, added),
    }
}

/// `text` without the block, where no installation is on record: other tables are not its.
pub(super) fn without_handlers_block(text: &str) -> String {
    without_block(text).unwrap_or_else(|| text.to_owned())
}

/// Whether the block is there.
pub(super) fn has_block(text: &str) -> bool {
    without_block(text).is_some()
}

/// `None` if there is no block.
fn without_block(text: &str) -> Option<String> {
    let start = line(text, BEGIN)?;
    let end = start + line(&text[start..], END)? + END.len();
    let (before, after) = (&text[..start], &text[end..]);
    // The empty line in front is of the block.
    let before = match before.strip_suffix('\n') {
        Some(shorter) if shorter.ends_with('\n') => shorter,
        _ => before,
    };
    Some(before.to_owned() + after.strip_prefix('\n').unwrap_or(after))
}

/// Where a line begins.
fn line(text: &str, wanted: &str) -> Option<usize> {
    let mut lines = text.match_indices(wanted);
    lines
        .find(|(at, _)| {
            let end = &text[at + wanted.len()..];
            (*at == 0 || text[..*at].ends_with('\n')) && (end.is_empty() || end.starts_with('\n'))
        })
        .map(|(at, _)| at)
}

/// The tables of this type that have the name of such a class are taken out, with those around them that are empty then.
fn without_tables(text: &str, target: &Target, added: &[String]) -> String {
    let Ok(mut document) = parse(text) else {
        return text.to_owned();
    };
    let mut found = false;
    let path = ["plugins", plugin(target.version), "containerd", "runtimes"];
    let mut item = Some(document.as_item_mut());
    for name in path {
        item = item.and_then(|item| item.as_table_like_mut()?.get_mut(name));
    }
    if let Some(runtimes) = item.and_then(Item::as_table_like_mut) {
        for class in added {
            let kind = runtimes.get(class).and_then(|it| it.get("runtime_type"));
            if kind.and_then(Item::as_str) == Some(RUNTIME_TYPE) {
                runtimes.remove(class);
                found = true;
            }
        }
    }
    match found {
        true => document.to_string(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
