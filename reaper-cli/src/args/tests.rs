use clap::{CommandFactory, Parser};

use super::{Cli, Command, UserArg};

fn parse(args: &str) -> Command {
    let args = std::iter::once("reaper-runtime").chain(args.split_whitespace());
    Cli::try_parse_from(args).unwrap().command.unwrap()
}

fn refused(args: &str) -> String {
    let args = std::iter::once("reaper-runtime").chain(args.split_whitespace());
    Cli::try_parse_from(args).unwrap_err().to_string()
}

#[test]
fn command_line_definition_passes_clap_debug_assert() {
    Cli::command().debug_assert();
}

#[test]
fn command_lines_of_engines_parse() {
    for line in [
        "--root /r --log l --log-format json create --bundle /b --pid-file p id",
        "--systemd-cgroup --log=l --log-format=json create -b /b --no-pivot --no-new-keyring \
         --console-socket /s --preserve-fds 2 id",
        "--rootless=auto --root /r start id",
        "--root /r exec --pid-file p --process f --detach --tty --console-socket s id",
        "--root /r exec --process f --console-socket s --detach --pid-file p id",
        "kill --all id 9",
        "delete --force id",
        "ps --format json id",
        "events --stats id",
        "run --detach --no-subreaper --bundle b id",
        "features",
    ] {
        parse(line);
    }
}

#[test]
fn the_arguments_of_an_execd_program_are_its_own() {
    let Command::Exec(exec) = parse("exec -e A=1 --tty id ps -ef --root /x --help") else {
        panic!("another command")
    };
    assert_eq!(exec.command, ["ps", "-ef", "--root", "/x", "--help"]);
    assert_eq!(exec.settings.env, ["A=1"]);
}

#[test]
fn run_takes_a_command_or_an_id() {
    let Command::Run(run) = parse("run --env A=1 --name n -t -- ls -l --keep") else {
        panic!("another command")
    };
    assert_eq!(run.command, ["ls", "-l", "--keep"]);
    assert!(run.settings.tty && !run.keep);
    let Command::Run(run) = parse("run --bundle /b id") else {
        panic!("another command")
    };
    assert_eq!(run.id.unwrap().as_str(), "id");
    refused("run");
    refused("run id -- ls");
    refused("run --name n id");
}

#[test]
fn kill_takes_signal_as_argument_or_option_but_not_both() {
    let number = |line: &str| {
        let Command::Kill(kill) = parse(line) else {
            panic!("another command")
        };
        kill.positional
            .or(kill.signal)
            .map(reaper_exec::Signal::number)
    };
    assert_eq!(number("kill id"), None);
    assert_eq!(number("kill id SIGUSR1"), Some(10));
    assert_eq!(number("kill id --signal 9"), Some(9));
    refused("kill id TERM --signal 9");
    refused("kill id NOPE");
}

#[test]
fn user_argument_must_be_numeric() {
    assert_eq!("33".parse(), Ok(UserArg { uid: 33, gid: None }));
    assert_eq!(
        "33:34".parse(),
        Ok(UserArg {
            uid: 33,
            gid: Some(34)
        })
    );
    assert!("www-data".parse::<UserArg>().is_err());
    assert!("1:".parse::<UserArg>().is_err());
}

#[test]
fn a_mistyped_command_gets_a_suggestion() {
    assert!(refused("overlay difff node").contains("'diff'"));
    assert!(refused("delet c").contains("'delete'"));
}

#[test]
fn every_command_has_examples() {
    fn without(command: &clap::Command, found: &mut Vec<String>) {
        let help = command.get_after_help().map(ToString::to_string);
        if !help.is_some_and(|help| help.contains("Examples:\n")) {
            found.push(command.get_name().to_owned());
        }
        for inner in command.get_subcommands() {
            without(inner, found);
        }
    }
    let mut found = Vec::new();
    without(&Cli::command(), &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn events_stats_requires_container_name() {
    parse("events");
    parse("events --json");
    refused("events --stats");
}

#[test]
fn figures_are_of_some_containers_or_of_all() {
    let Command::Stats(stats) = parse("stats --no-stream --interval 10ms one two") else {
        panic!("another command")
    };
    assert_eq!(stats.ids.len(), 2);
    assert!(stats.no_stream && !stats.json);
    let Command::Stats(stats) = parse("stats --json") else {
        panic!("another command")
    };
    assert!(stats.ids.is_empty());
}

#[test]
fn state_migrate_with_options_requires_target_store() {
    let Command::State(state) = parse("state migrate --to sqlite --dry-run") else {
        panic!("another command")
    };
    let Some(super::StateCommand::Migrate(migrate)) = state.command else {
        panic!("another command")
    };
    assert_eq!(migrate.to, Some(reaper_spec::StoreKind::Sqlite));
    parse("state migrate");
    refused("state");
    refused("state migrate --dry-run");
    refused("state migrate --to mysql");
    refused("state migrate --to sqlite --dry-run --remove");
}
