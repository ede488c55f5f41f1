//! `swarmkv peers`: the other members, connected or not.

use swarmkv_node::api::wire::PeerInfo;

use crate::client::Peer;
use crate::error::Failure;
use crate::output::{Output, Table};
use crate::settings::Settings;
use crate::text;

/// Prints them.
pub async fn run(settings: &Settings, out: Output) -> Result<(), Failure> {
    let peers = Peer::connect(settings).await?.peers().await?;
    if out.is_json() {
        return peers.iter().try_for_each(|peer| out.json(peer));
    }
    if peers.is_empty() {
        out.talk("This device is the only member. Admit another with: swarmkv invite");
    }
    print(&peers, out)
}

/// Prints the table of peers; it fits 80 columns.
pub fn print(peers: &[PeerInfo], out: Output) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("DEVICE", 12),
        ("ROLE", 6),
        ("FOUND", 6),
        ("OVER", 4),
        ("ADDRESS", 21),
        ("BEHIND", 6),
        ("AHEAD", 5),
        ("EQUAL", 6),
    ]);
    for peer in peers {
        table.row(row(peer));
    }
    for (i, line) in table.lines().iter().enumerate() {
        let line = match (i.checked_sub(1).map(|i| &peers[i]), line) {
            (None, heading) => out.heading(heading),
            (Some(peer), line) if !peer.connected => out.faint(line),
            (_, line) => line.clone(),
        };
        out.line(&line)?;
    }
    Ok(())
}

fn row(peer: &PeerInfo) -> Vec<String> {
    let known = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let address = match &peer.addr {
        _ if peer.blocked_until.is_some() => "blocked".into(),
        Some(addr) if peer.connected => text::host_port(addr),
        _ => "not connected".into(),
    };
    vec![
        text::escaped(peer.device.as_bytes()),
        peer.role.clone(),
        known(&peer.source),
        known(&peer.transport),
        address,
        lag(peer, peer.behind),
        lag(peer, peer.ahead),
        equal(peer),
    ]
}

/// How far a connected peer is; nothing is known of another.
fn lag(peer: &PeerInfo, operations: u64) -> String {
    if peer.connected { short_count(operations) } else { "-".into() }
}

/// How long ago both sides were seen equal on this connection: `now` within ten seconds.
fn equal(peer: &PeerInfo) -> String {
    match peer.equal_ms_ago {
        None if !peer.connected => "-".into(),
        None => "never".into(),
        Some(0..10_000) if peer.behind == 0 && peer.ahead == 0 => "now".into(),
        Some(millis) => text::short_time(millis / 1000),
    }
}

fn short_count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1000),
        _ => format!("{}M", number / 1_000_000),
    }
}
