//! Command lines, checked against what the programs say of themselves.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    process::Command,
};

use reaper_tests::suite::reaper_program;

use crate::pages::root;

/// The simple commands of a line of shell, as far as they are about this repository.
pub(crate) fn split(line: &str) -> Vec<Vec<String>> {
    let Some(words) = shlex::split(line) else {
        return Vec::new();
    };
    let mut commands = vec![Vec::new()];
    for word in words {
        let ends = word.ends_with(';');
        let word = word.trim_end_matches(';');
        if ["&&", "||", "|", "&", ""].contains(&word) {
            commands.push(Vec::new());
            continue;
        }
        let command = commands.last_mut().expect("at least one");
        command.push(word.to_owned());
        if ends {
            commands.push(Vec::new());
        }
    }
    commands
        .into_iter()
        .map(|command| {
            // `cargo run … --bin reaper-runtime -- …` is `reaper-runtime …`; other programs that
            // run one are no matter of ours.
            let runs = command
                .windows(2)
                .position(|pair| pair == ["reaper-runtime", "--"]);
            match runs {
                Some(at) if command[0] == "cargo" => {
                    let mut command = command[at..].to_vec();
                    command.remove(1);
                    command
                }
                _ => command,
            }
        })
        .filter(|command| {
            let program = command.first().map(String::as_str).unwrap_or_default();
            ["reaper-runtime", "cargo"].contains(&program)
                || program.starts_with("tests/")
                || program.starts_with(".githooks/")
        })
        .collect()
}

/// What `--help` says of a command.
#[derive(Debug, Default)]
struct Help {
    commands: Vec<String>,
    /// Whether it takes anything but a command.
    arguments: bool,
    /// Options, and whether a value follows.
    options: BTreeMap<String, bool>,
}

impl Help {
    fn ask(path: &[String]) -> Self {
        let output = Command::new(reaper_program("reaper-runtime"))
            .args(path)
            .arg("--help")
            .output()
            .expect("ask for help");
        assert!(output.status.success(), "{path:?}: {output:?}");
        let text = String::from_utf8(output.stdout).expect("a text");
        let mut help = Self::default();
        let mut section = "";
        for line in text.lines() {
            if line.trim().is_empty() {
                continue;
            }
            if !line.starts_with(' ') {
                section = line;
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match section {
                "Commands:" => {
                    help.commands
                        .extend(words.first().map(|word| (*word).to_owned()));
                    let alias = line.split("[alias: ").nth(1);
                    let alias = alias.and_then(|rest| rest.strip_suffix(']'));
                    help.commands.extend(alias.map(str::to_owned));
                }
                "Arguments:" => help.arguments = true,
                "Options:" | "Global options:" if words[0].starts_with('-') => {
                    let value = words.iter().any(|word| word.starts_with('<'));
                    for word in words.iter().take_while(|word| word.starts_with('-')) {
                        let name = word.trim_end_matches(',').to_owned();
                        help.options.insert(name, value);
                    }
                }
                _ => {}
            }
        }
        help
    }
}

/// What is known of the programs, asked for once.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<Vec<String>, Help>);

impl Known {
    pub(crate) fn check(&mut self, command: &[String]) -> Result<(), String> {
        match command[0].as_str() {
            "reaper-runtime" => self.check_runtime(&command[1..]),
            "cargo" => check_cargo(&command[1..]),
            script if root().join(script).is_file() => Ok(()),
            script => Err(format!("there is no {script}")),
        }
    }

    fn check_runtime(&mut self, words: &[String]) -> Result<(), String> {
        let mut path: Vec<String> = Vec::new();
        let mut values = 0;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let help = self
                .0
                .entry(path.clone())
                .or_insert_with(|| Help::ask(&path));
            if word == "--" || word.starts_with('>') || word == "<" || word == "2>" {
                break;
            }
            if word.starts_with('-') {
                let (name, given) = match word.split_once('=') {
                    Some((name, _)) => (name, true),
                    None => (word.as_str(), false),
                };
                match help.options.get(name) {
                    None => return Err(format!("{path:?} has no option {name}")),
                    Some(true) if !given => drop(words.next()),
                    Some(_) => {}
                }
            } else if help.commands.contains(word) {
                path.push(word.clone());
            } else if help.commands.is_empty() || help.arguments {
                values += 1;
                // What follows is somebody else's command line.
                if path == ["exec"] && values == 1 {
                    break;
                }
            } else if is_placeholder(word) {
                break;
            } else {
                return Err(format!("{path:?} has no command {word}"));
            }
        }
        Ok(())
    }
}

/// Whether a word stands for others, as `COMMAND` and `…` do.
fn is_placeholder(word: &str) -> bool {
    word.contains('…') || word.chars().all(|c| c.is_ascii_uppercase())
}

/// Packages, binaries, tests and examples that are named have to be there.
fn check_cargo(words: &[String]) -> Result<(), String> {
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).filter(|word| !is_placeholder(word))
    };
    let package = value("-p");
    let folder = package.map(|name| match name.as_str() {
        "reaper-tests" => "tests",
        "reaper-examples" => "examples",
        name => name,
    });
    if let Some(folder) = folder
        && !root().join(folder).join("Cargo.toml").is_file()
    {
        return Err(format!("there is no package {folder}"));
    }
    let kinds = [
        ("--bin", "src/bin"),
        ("--test", "tests"),
        ("--example", "examples"),
    ];
    for (option, place) in kinds {
        let (Some(name), Some(folder)) = (value(option), folder) else {
            continue;
        };
        let place = root().join(folder).join(place);
        let there =
            place.join(format!("{name}.rs")).exists() || place.join(name).join("main.rs").exists();
        // A binary may have a name of its own.
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml"));
        let named = manifest.is_ok_and(|text| text.contains(&format!("name = \"{name}\"")));
        if !there && !named {
            return Err(format!("there is no {option} {name} in {folder}"));
        }
    }
    Ok(())
}
