//! `swarmkv invite`: a ticket that admits another device.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use swarmkv_node::api::wire::InviteRequest;

use crate::args::Invite;
use crate::client::{Peer, millis};
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;
use crate::{parse, text};

/// Asks the running peer for it.
pub async fn run(args: Invite, settings: &Settings, out: Output) -> Result<(), Failure> {
    let request = InviteRequest {
        role: args.role,
        prefix: parse::key(&args.prefix.unwrap_or_default(), false)?,
        quota: args.quota,
        expires_ms: millis(args.expires),
        uses: args.uses,
    };
    let answer = Peer::connect(settings).await?.invite(&request).await?;
    if out.is_json() {
        return out.json(&answer);
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
    out.talk(
        "It will show two check words, and so will this device's peer: in its window, or, started \
         with --detach, in up.log in its data directory.",
    );
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
