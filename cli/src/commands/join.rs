//! `swarmkv join`: becoming a member by a ticket.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use swarmkv_node::protocol::ticket::Ticket;
use swarmkv_node::{JoinError, Joined};

use super::input::read_up_to;
use crate::args::Join;
use crate::error::Failure;
use crate::output::Output;
use crate::settings::{Settings, label};

/// How long a person may take to compare the check words.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(600);
/// How often it is asked whether they have.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Longest ticket text read, white space counted.
const MAX_TEXT: usize = 16 * 1024;

/// Joins.
pub async fn run(args: Join, settings: &Settings, out: Output) -> Result<(), Failure> {
    let text = ticket_text(&args.ticket)?;
    let ticket = Ticket::parse(&text).map_err(JoinError::Ticket)?;
    let label = label(args.label);
    let joined = admitted(&ticket, &label, settings, out).await?;
    if out.is_json() {
        return out.json(&json!({
            "swarm": joined.swarm,
            "swarm_id": joined.swarm_id.to_string(),
            "device": label,
            "device_id": joined.device_id.to_string(),
            "role": joined.role.to_string(),
            "inviter": joined.inviter,
            "check_words": joined.check_words,
            "data_dir": settings.data_dir().to_string_lossy(),
        }));
    }
    let (swarm, role, inviter) = (joined.swarm, joined.role, joined.inviter);
    out.talk(format!("Joined the swarm \"{swarm}\" as \"{label}\" ({role})."));
    out.talk(format!("Check words: {}. \"{inviter}\" shows the same.", joined.check_words));
    out.talk("Next: swarmkv up");
    Ok(())
}

/// Asks to be admitted, and again while a person on the other side compares the check words.
async fn admitted(
    ticket: &Ticket,
    label: &str,
    settings: &Settings,
    out: Output,
) -> Result<Joined, Failure> {
    let until = Instant::now() + CONFIRMED_WITHIN;
    let mut said = false;
    loop {
        match swarmkv_node::join(settings.data_dir(), ticket, label, settings.timeout).await {
            Err(JoinError::Unconfirmed { check_words }) if Instant::now() < until => {
                if !said {
                    out.talk(format!(
                        "Check words: {check_words}. Waiting until the other side confirms them."
                    ));
                }
                said = true;
                tokio::time::sleep(ASK_EVERY).await;
            }
            joined => return Ok(joined?),
        }
    }
}

/// The ticket's text: from standard input, or from arguments that a paste may have split.
fn ticket_text(args: &[String]) -> Result<String, Failure> {
    if args != ["-"] {
        return Ok(args.concat());
    }
    let bytes = read_up_to(Path::new("-"), MAX_TEXT)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage("standard input holds no text, so no ticket"))?;
    if text.trim().is_empty() {
        return Err(Failure::usage("standard input holds no ticket")
            .hint("Give what `swarmkv invite` printed."));
    }
    Ok(text)
}
