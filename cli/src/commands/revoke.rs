//! `swarmkv revoke` and `swarmkv leave`: a device is out, for ever. Both show first what that means.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use swarmkv_node::api::wire::{RevokeAnswer, RevokeRequest};

use crate::args::{Leave, Revoke};
use crate::client::{Peer, now};
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;
use crate::text;

/// Takes a device out.
pub async fn revoke(args: Revoke, settings: &Settings, out: Output) -> Result<(), Failure> {
    if args.device.is_empty() {
        return Err(Failure::usage("DEVICE is empty.").hint("This device itself: swarmkv leave"));
    }
    let request = ask_for(args.device, false);
    let mut peer = Peer::connect(settings).await?;
    if !args.yes {
        let would = peer.revoke(RevokeRequest { preview: true, ..request.clone() }).await?;
        let name = quoted(&would);
        preview(&would, &format!("{name} will be taken out, for ever."), out);
        agree(&format!("Take {name} out?"), out)?;
    }
    let answer = peer.revoke(request).await?;
    if out.is_json() {
        return out.json(&answer);
    }
    let name = quoted(&answer);
    out.line(&format!("{name} is no member any more. {}", kept(&answer)))?;
    holders(&answer, out);
    Ok(())
}

/// Leaves.
pub async fn leave(args: Leave, settings: &Settings, out: Output) -> Result<(), Failure> {
    let request = ask_for(String::new(), args.force);
    let mut peer = Peer::connect(settings).await?;
    if !args.yes {
        let would = peer.revoke(RevokeRequest { preview: true, ..request.clone() }).await?;
        let safe = match would.holders {
            0 if would.device.slots > 0 => {
                "No connected member has everything that this device wrote.".to_owned()
            }
            holders => format!(
                "{} everything that this device wrote.",
                have(holders as u64, "connected member")
            ),
        };
        preview(&would, &format!("This device will leave, for ever. {safe}"), out);
        agree("Leave the swarm?", out)?;
    }
    let answer = peer.revoke(request).await?;
    if out.is_json() {
        return out.json(&answer);
    }
    out.line("This device is no member any more. Its copy stays readable here.")?;
    if answer.connected > 0 {
        let unaware = text::plural(answer.connected as u64, "connected member");
        out.talk(format!("{unaware} did not confirm it yet: leave the peer running for a while."));
    }
    if !answer.away.is_empty() {
        out.talk(format!("Not connected, to hear of it later: {}.", names(&answer.away)));
    }
    Ok(())
}

fn ask_for(device: String, force: bool) -> RevokeRequest {
    RevokeRequest { device, preview: false, force, timeout_ms: 0 }
}

fn quoted(answer: &RevokeAnswer) -> String {
    format!("\"{}\"", text::escaped(answer.device.device.as_bytes()))
}

fn names(labels: &[String]) -> String {
    let labels: Vec<String> = labels.iter().map(|label| text::escaped(label.as_bytes())).collect();
    labels.join(", ")
}

fn have(number: u64, noun: &str) -> String {
    format!("{} {}", text::plural(number, noun), if number == 1 { "has" } else { "have" })
}

/// What stays of the device's writes.
fn kept(answer: &RevokeAnswer) -> String {
    let device = &answer.device;
    let written = match device.last_write {
        None => return "It has written nothing that is here.".to_owned(),
        Some(at) => text::duration(Duration::from_millis(now().saturating_sub(at))),
    };
    let slots = text::plural(device.slots, "live operation");
    format!(
        "Of its writes {slots} ({}) stay, the last from {written} ago.",
        text::size(device.bytes)
    )
}

fn preview(answer: &RevokeAnswer, what: &str, out: Output) {
    let id: String = answer.device.device_id.chars().take(10).collect();
    out.talk(format!("{} ({id}), {}. {what}", quoted(answer), answer.device.role));
    out.talk(kept(answer));
    if !answer.pulled {
        out.talk("Not all that connected members have could be pulled in time: see --timeout.");
    }
    if answer.missing > 0 {
        let missing = text::plural(answer.missing, "operation");
        out.talk(format!(
            "{missing} of it that others know of did not arrive here: they will be lost."
        ));
    }
    out.talk("What it writes where nobody here sees it is lost to the swarm.");
    if !answer.away.is_empty() {
        out.talk(format!("Not connected, to hear of it later: {}.", names(&answer.away)));
    }
}

/// Says who holds what stays.
fn holders(answer: &RevokeAnswer, out: Output) {
    let (holders, connected) = (answer.holders as u64, answer.connected as u64);
    if connected == 0 {
        out.talk("No other member is connected: what stays of its writes is on this device alone.");
    } else if holders == connected {
        let all = text::plural(connected, "connected member");
        out.talk(format!("What stays is also on {all}: all there are."));
    } else {
        out.talk(format!("What stays is so far on {holders} of {connected} connected members."));
    }
    if !answer.away.is_empty() {
        out.talk(format!("Not connected, to hear of it later: {}.", names(&answer.away)));
    }
}

/// Asks on a terminal; elsewhere it cannot be asked.
fn agree(question: &str, out: Output) -> Result<(), Failure> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !can_ask || out.is_json() {
        return Err(Failure::usage(
            "This cannot be undone, so it must be asked for: nothing was done.",
        )
        .hint("Do it with: --yes"));
    }
    let _ = write!(std::io::stderr(), "{question} [y/N] ");
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    if matches!(line.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::failed("Nothing was done."))
}
