//! One file a command. Each takes its arguments, asks the peer, and hands data and talk to `Output`.

mod bench;
mod del;
mod demo;
mod get;
mod import;
mod init;
mod input;
mod invite;
mod join;
mod ls;
mod members;
mod peers;
mod put;
mod revoke;
mod scrub;
mod status;
mod up;

use crate::args::Command;
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;

/// Carries out a command.
pub async fn run(command: Command, settings: &Settings, out: Output) -> Result<(), Failure> {
    match command {
        Command::Demo => demo::run(out).await,
        Command::Init(args) => init::run(args, settings, out),
        Command::Up(args) => up::run(args, settings, out).await,
        Command::Invite(args) => invite::run(args, settings, out).await,
        Command::Join(args) => join::run(args, settings, out).await,
        Command::Put(args) => put::run(args, settings, out).await,
        Command::Get(args) => get::run(args, settings, out).await,
        Command::Del(args) => del::run(args, settings, out).await,
        Command::Ls(args) => ls::run(args, settings, out).await,
        Command::Import(args) => import::run(args, settings, out).await,
        Command::Status => status::run(settings, out).await,
        Command::Members => members::run(settings, out).await,
        Command::Revoke(args) => revoke::revoke(args, settings, out).await,
        Command::Leave(args) => revoke::leave(args, settings, out).await,
        Command::Peers => peers::run(settings, out).await,
        Command::Scrub => scrub::run(settings, out).await,
        Command::Bench(args) => bench::run(args, settings, out).await,
    }
}
