//! `swarmkv`: arguments in, the local API out, people's words. It holds no rule of the store: what a
//! write means is decided in the peer that it asks.

mod args;
mod client;
mod commands;
mod error;
mod logging;
mod output;
mod parse;
mod settings;
mod text;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::Cli;
use error::{Failure, Kind};
use output::Output;
use settings::Settings;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse_arguments(error),
    };
    let out = Output::new(cli.common.json, cli.common.quiet);
    match run(cli, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_silent() => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.kind.code())
        }
    }
}

fn run(cli: Cli, out: Output) -> Result<(), Failure> {
    let settings = Settings::resolve(&cli.common)?;
    logging::start(settings.verbose);
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|e| Failure::io("the program cannot start its threads", &e))?;
    let result = runtime.block_on(commands::run(cli.command, &settings, out));
    // A read of standard input cannot be called off: do not wait for it.
    runtime.shutdown_background();
    result
}

/// Help and version are data that was asked for; anything else is a usage error.
fn refuse_arguments(error: clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Output::new(false, false).talk(Cli::command().render_help().to_string());
            ExitCode::from(Kind::Usage.code())
        }
        _ => {
            let json = std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json");
            let failure = Failure::from(error);
            Output::new(json, false).failure(&failure);
            ExitCode::from(failure.kind.code())
        }
    }
}
