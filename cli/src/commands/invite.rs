//! `swarmkv invite`: a ticket that admits another device.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use swarmkv_node::api::wire::{ConfirmRequest, InviteRequest};

use crate::args::Invite;
use crate::client::{Peer, millis};
use crate::error::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;
use crate::{parse, text};

/// How often the peer is asked who has come.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Asks the running peer for it.
pub async fn run(args: Invite, settings: &Settings, out: Output) -> Result<(), Failure> {
    let request = InviteRequest {
        role: args.role.clone(),
        prefix: parse::key(&args.prefix.clone().unwrap_or_default(), false)?,
        quota: args.quota,
        expires_ms: millis(args.expires),
        uses: args.uses,
        confirm: args.confirm,
    };
    let mut peer = Peer::connect(settings).await?;
    let answer = peer.invite(&request).await?;
    if out.is_json() {
        out.json(&answer)?;
        return if args.confirm { wait(&mut peer, &args, out).await } else { Ok(()) };
    }
    if args.qr {
        out.talk(qr(&answer.ticket)?);
    }
    out.line(&answer.ticket)?;
    let time = text::duration(args.expires);
    let devices = text::plural(args.uses.into(), "device");
    let role = answer.role;
    let limits = limits(&request);
    out.talk(format!("Good for {time} and {devices}, to join as {role}{limits}."));
    if answer.addrs.is_empty() {
        out.talk("This device knows no address of its own yet: the ticket may not reach it.");
    }
    out.talk("On the other device: swarmkv join TICKET");
    if args.confirm {
        out.talk(
            "It will show two check words, which are asked for here. Ctrl-C ends the waiting.",
        );
        return wait(&mut peer, &args, out).await;
    }
    out.talk(
        "It will show two check words, and so will this device's peer: in its window, or, started \
         with --detach, in up.log in its data directory.",
    );
    Ok(())
}

/// Asks about each device that comes, until as many were admitted as the ticket admits, or its time is up.
async fn wait(peer: &mut Peer, args: &Invite, out: Output) -> Result<(), Failure> {
    let until = Instant::now() + args.expires;
    let mut left = args.uses;
    while left > 0 {
        if Instant::now() >= until {
            return Err(Failure::new(
                Kind::Timeout,
                "The ticket's time is up: nobody was admitted on it since.",
            )
            .hint("Make another with: swarmkv invite --confirm"));
        }
        tokio::time::sleep(ASK_EVERY).await;
        for knock in peer.knocks().await? {
            let name = text::escaped(knock.device.as_bytes());
            let question = format!(
                "\"{name}\" asks to join. Does it show the check words {}? [y/N] ",
                knock.check_words
            );
            let _ = write!(std::io::stderr(), "{question}");
            let mut line = String::new();
            let _ = std::io::stdin().lock().read_line(&mut line);
            let same = matches!(line.trim(), "y" | "Y" | "yes");
            let device_id = knock.device_id;
            peer.confirm(&ConfirmRequest { device_id, same }).await?;
            if same {
                left -= 1;
                out.talk(format!("Confirmed: \"{name}\" is let in."));
            } else {
                out.talk(format!("Declined: \"{name}\" stays outside."));
            }
            if left == 0 {
                break;
            }
        }
    }
    Ok(())
}

fn limits(request: &InviteRequest) -> String {
    let mut said = String::new();
    if !request.prefix.0.is_empty() {
        said.push_str(&format!(" of keys beginning with \"{}\"", text::escaped(&request.prefix.0)));
    }
    if let Some(quota) = request.quota {
        said.push_str(&format!(", up to {}", text::size(quota)));
    }
    said
}

fn qr(ticket: &str) -> Result<String, Failure> {
    let code = QrCode::new(ticket)
        .map_err(|e| Failure::failed(format!("the ticket fits no QR code: {e}")))?;
    Ok(code.render::<Dense1x2>().build())
}
