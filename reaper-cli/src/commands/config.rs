//! `config`.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

use reaper_spec::{Config, Origin, SettingSource};
use serde_json::json;

use super::{output::print_json, print, table::print_plain};
use crate::{
    args::{ConfigArgs, ConfigCommand, Format},
    colours::Colours,
    error::{Error, Result},
    outcome::ExitAction,
    settings::Defaults,
};

/// Looks at the configuration that `file`, if one is named, and the environment make. It does not need the
/// settings that other commands begin with: they may be what is wrong.
pub(crate) fn run(
    file: Option<&Path>,
    args: &ConfigArgs,
    out: &mut dyn Write,
) -> Result<ExitAction> {
    match &args.command {
        ConfigCommand::Check { file: other } => check(other.as_deref().or(file), out),
        ConfigCommand::Show { format } => show(file, *format, out),
    }
}

fn check(file: Option<&Path>, out: &mut dyn Write) -> Result<ExitAction> {
    let defaults = Defaults::of_caller()?;
    if let Err(error) = defaults.load(file) {
        return Err(with_line(error));
    }
    let sources = sources(file)?;
    let mut files: Vec<PathBuf> = Vec::new();
    for source in &sources {
        if let Origin::File(path) = &source.origin
            && !files.contains(path)
        {
            files.push(path.clone());
        }
    }
    let count = sources.len();
    let of = match files.as_slice() {
        [] => String::new(),
        files => {
            let names: Vec<_> = files
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            format!(" of {}", names.join(" and "))
        }
    };
    print(
        out,
        format_args!("nothing is wrong with the {count} settings{of}\n"),
    )?;
    Ok(ExitAction::DONE)
}

fn show(file: Option<&Path>, format: Format, out: &mut dyn Write) -> Result<ExitAction> {
    Defaults::of_caller()?.load(file).map_err(with_line)?;
    let sources = sources(file)?;
    if format == Format::Json {
        let settings: Vec<_> = sources.iter().map(as_json).collect();
        print_json(out, &settings)?;
        return Ok(ExitAction::DONE);
    }
    let row = |source: &SettingSource| [source.key.to_owned(), source.value.clone(), place(source)];
    let rows: Vec<_> = sources.iter().map(row).collect();
    let head = ["SETTING", "VALUE", "FROM"];
    print_plain(out, Colours::of_stdout(), &head, &rows)?;
    Ok(ExitAction::DONE)
}

fn sources(file: Option<&Path>) -> Result<Vec<SettingSource>> {
    let defaults = Defaults::of_caller()?;
    let env = |name: &str| env::var_os(name);
    Ok(Config::sources(&defaults.file, file, &env)?)
}

fn place(source: &SettingSource) -> String {
    match (&source.origin, source.line, source.variable) {
        (Origin::File(path), Some(line), _) => format!("{}, line {line}", path.display()),
        (Origin::File(path), None, _) => path.display().to_string(),
        (_, _, Some(variable)) => format!("the environment, {variable}"),
        _ => "the environment".to_owned(),
    }
}

fn as_json(source: &SettingSource) -> serde_json::Value {
    let file = match &source.origin {
        Origin::File(path) => Some(path.display().to_string()),
        _ => None,
    };
    json!({
        "key": source.key,
        "value": source.value,
        "file": file,
        "line": source.line,
        "variable": source.variable,
    })
}

/// The error with the line of the key that it names.
fn with_line(error: reaper_spec::Error) -> Error {
    let place = match &error {
        reaper_spec::Error::Invalid {
            origin: Origin::File(path),
            invalid,
        } => Config::line_of(path, &invalid.at),
        reaper_spec::Error::UnknownKey {
            origin: Origin::File(path),
            key,
            ..
        } => Config::line_of(path, key),
        _ => None,
    };
    match place {
        Some(line) => Error::ConfigLine {
            line,
            source: error,
        },
        None => error.into(),
    }
}
