//! From the command line to an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, builder::StyledStr};
use reaper_spec::Config;

use crate::{
    args::{Cli, Command, GlobalArgs},
    colours::Colours,
    commands::{self, CommandContext, StandIn, print},
    detached,
    error::{Error, Result},
    host::Open,
    log,
    outcome::ExitAction,
    proxy::Proxy,
    settings::Settings,
    sockets::Sockets,
    streams::{self, Printer},
    sys,
};

/// What a failed call ends with, as runc's do.
const FAILURE: u8 = 1;
/// What a failed `exec` ends with, so that it is no exit code of the program.
const EXEC_FAILURE: u8 = 255;

/// Does what the command line says, with the containers that `open` finds.
pub(crate) fn run(open: Open) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) if message.use_stderr() => {
            // Without a reader of stderr the exit code has to do.
            let _ = message.print();
            return FAILURE.into();
        }
        Err(help) => return end(print_help(&help.render()), FAILURE),
    };
    let Cli {
        global,
        version,
        command,
    } = cli;
    let command = match (version, command) {
        (true, _) => Command::Version,
        (false, Some(command)) => command,
        (false, None) => {
            let printed = print_help(&Cli::command().render_help());
            return end(printed.map(|_| ExitAction::Code(FAILURE)), FAILURE);
        }
    };
    let failure = if matches!(command, Command::Exec(_)) {
        EXEC_FAILURE
    } else {
        FAILURE
    };
    end(execute(&global, command, open), failure)
}

/// Ends this program; with `failure` after an error, which is reported.
fn end(outcome: Result<ExitAction>, failure: u8) -> ExitCode {
    match outcome {
        Ok(outcome) => outcome.finish().into(),
        Err(error) if error.is_broken_pipe() => failure.into(),
        Err(error) => {
            report(&error);
            failure.into()
        }
    }
}

/// Prints help, with its looks for a terminal only.
fn print_help(help: &StyledStr) -> Result<ExitAction> {
    let mut out = Printer::stdout();
    if Colours::of_stdout() == Colours::default() {
        print(&mut out, format_args!("{help}"))?;
    } else {
        print(&mut out, format_args!("{}", help.ansi()))?;
    }
    Ok(ExitAction::DONE)
}

fn execute(global: &GlobalArgs, command: Command, open: Open) -> Result<ExitAction> {
    // A configuration that is wrong ends all other commands here.
    if let Command::Config(args) = &command {
        let file = global.config.as_deref();
        return commands::look_at_configuration(file, args, &mut Printer::stdout());
    }
    if let Command::Exec(exec) = &command
        && exec.detach
    {
        // The helper outlives this call, and must not keep descriptors open that the caller leaked
        // to it.
        sys::close_inherited(3_u32.saturating_add(exec.preserve_fds), u32::MAX)
            .map_err(Error::io("close the descriptors of the caller"))?;
    }
    // Before anything is opened that could get the number of a descriptor that was promised and
    // is missing.
    let preserved = streams::preserved(command.preserve_fds())?;
    // Before the fork, after which this process is another.
    let sockets = Sockets::of_caller(command.preserve_fds());
    // Likewise before there is a thread, or a file that the helper must not keep.
    let role = match &command {
        Command::Exec(exec) if exec.detach => detached::fork_helper(exec)?,
        _ => detached::HelperRole::None,
    };
    let proxy = match &command {
        Command::Create(args) if args.bundle.pid_file.is_some() => Some(Proxy::fork(global)?),
        Command::Run(args) if args.bundle.pid_file.is_some() => Some(Proxy::fork(global)?),
        _ => None,
    };
    if let detached::HelperRole::Caller(helper) = role {
        begin(global)?;
        return helper.wait();
    }
    let outcome = begin(global).and_then(|settings| {
        for option in global.without_meaning().chain(command.without_meaning()) {
            tracing::debug!("{option} has no meaning here");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("start the async runtime"))?;
        let call = CommandContext {
            containers: open(settings.root, &settings.config)?,
            open,
            config: settings.config,
            config_file: global.config.clone(),
            one_namespace: global.namespace.is_some(),
            preserved,
            sockets,
            stand_in: proxy
                .map(|proxy| -> StandIn { Box::new(move |record| proxy.stand_for(record)) }),
            log_format: global.log_format,
            colours: Colours::of_stdout(),
        };
        let mut out = Printer::stdout();
        runtime.block_on(commands::run(call, command, &role, &mut out))
    });
    match role {
        detached::HelperRole::Helper(report) => report.end(outcome),
        _ => outcome,
    }
}

fn begin(global: &GlobalArgs) -> Result<Settings> {
    let settings = Settings::load(global);
    match &settings {
        Ok(settings) => log::start(global, &settings.config)?,
        Err(_) => log::start(global, &Config::default())?,
    }
    settings
}

fn report(error: &Error) {
    let line = error.line();
    tracing::error!(target: log::PRINTED, "{line}");
    // Where stderr is closed the exit code has to do.
    let _ = writeln!(io::stderr(), "reaper-runtime: {line}");
}
