//! `completions`.
//!
//! clap_complete writes the scripts from the options. It knows no containers, and leaves some that the
//! shells then do not understand: what is put right here is tried in the real shells by the tests.

use std::io::Write;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::{
    args::{Cli, CompletionsArgs},
    error::{Error, Result},
    outcome::ExitAction,
};

const BASH: &str = include_str!("completions/containers.bash");
const FISH: &str = include_str!("completions/containers.fish");
const ZSH: &str = include_str!("completions/containers.zsh");

/// Where the functions of zsh go: before the call of the first of them.
const ZSH_END: &str = "if [ \"$funcstack[1]\"";

pub(crate) fn run(args: &CompletionsArgs, out: &mut dyn Write) -> Result<ExitAction> {
    // It panics where it cannot write.
    let mut script = Vec::new();
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let script = String::from_utf8_lossy(&script);
    let script = match args.shell {
        Shell::Bash => bash(&script, &command),
        Shell::Fish => fish(&script, &command),
        Shell::Zsh => zsh(&script),
        _ => script.into_owned(),
    };
    out.write_all(script.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Error::io("write to stdout"))?;
    Ok(ExitAction::DONE)
}

fn bash(script: &str, command: &clap::Command) -> String {
    // The hyphen in the program's name is taken for one that parts commands, in some places.
    let script = script.replace("reaper__subcmd__runtime", "reaper__runtime");
    let more = BASH
        .replace("COMMANDS", &of_containers(command).join(" | "))
        .replace("VALUED", &with_values(command).join(" | "));
    script + &more
}

fn fish(script: &str, command: &clap::Command) -> String {
    let shells: Vec<_> = Shell::value_variants()
        .iter()
        .map(ToString::to_string)
        .collect();
    let more = FISH
        .replace("COMMANDS", &of_containers(command).join(" "))
        .replace("SHELLS", &shells.join(" "));
    script.to_owned() + &more
}

fn zsh(script: &str) -> String {
    // It is the name or a command there, and not first the one and then the other.
    let commands = "\":: :_reaper-runtime__subcmd__state_commands\"";
    let (mut text, mut id) = (String::new(), String::new());
    for line in script.split_inclusive('\n') {
        if line.starts_with(commands) {
            id.clear();
            text.push_str(&line.replace(commands, "\":: :_reaper-runtime_state\""));
            continue;
        }
        text.push_str(&std::mem::take(&mut id));
        if line.contains(":id -- The container") && line.ends_with(":_default' \\\n") {
            id = line.replace(":_default'", ":_reaper-runtime_containers'");
        } else {
            text.push_str(line);
        }
    }
    text.push_str(&id);
    text.replace("$line[2]", "$line[1]")
        .replace(ZSH_END, &format!("{ZSH}{ZSH_END}"))
}

/// The options that are followed by a value, of the program and of its commands.
fn with_values(command: &clap::Command) -> Vec<String> {
    let valued = command
        .get_opts()
        .filter(|option| option.get_action().takes_values());
    let mut names: Vec<String> = valued
        .flat_map(|option| {
            let long = option.get_long().map(|name| format!("--{name}"));
            let short = option.get_short().map(|name| format!("-{name}"));
            long.into_iter().chain(short)
        })
        .collect();
    names.extend(command.get_subcommands().flat_map(with_values));
    names.sort();
    names.dedup();
    names
}

/// The commands whose first argument is a container, by all their names.
fn of_containers(command: &clap::Command) -> Vec<String> {
    let named = command.get_subcommands().filter(|command| {
        let mut arguments = command.get_positionals();
        arguments.next().is_some_and(|first| first.get_id() == "id")
            // These make one.
            && !["create", "run"].contains(&command.get_name())
    });
    named
        .flat_map(|command| {
            [command.get_name()]
                .into_iter()
                .chain(command.get_all_aliases())
        })
        .map(str::to_owned)
        .collect()
}
