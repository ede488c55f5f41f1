//! Gossip scores in real swarms: who sends bad messages is shut out within seconds, and nobody honest,
//! quiet or busy, ever sinks.
//!
//! `cargo test --release -p swarmkv-node --test scoring -- --ignored --nocapture` prints the table for 2, 5, 20
//! and 50 nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use swarmkv_node::network::{Command, Event, Network, NetworkConfig, Verdict};
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::id::{DeviceId, SwarmId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const SWARM: SwarmId = SwarmId::new([5; 32]);
/// From here on nothing of a peer is taken.
const GRAYLISTED: f64 = -160.0;
/// What nobody honest would send begins with this.
const BAD: &[u8] = b"bad";

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_seed(&[n + 1; 32])
}

/// A peer whose driver accepts everything but what is bad.
struct Peer {
    id: DeviceId,
    net: Network,
    addr: String,
    received: mpsc::UnboundedReceiver<Vec<u8>>,
    driver: JoinHandle<()>,
}

async fn peer(n: u8, members: &BTreeSet<DeviceId>) -> Peer {
    let mut config = NetworkConfig::new(key(n).seed(), SWARM);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    config.mdns = false;
    config.members = members.clone();
    let (net, mut events) = Network::start(config).await.expect("loopback can be listened on");
    let addr = loop {
        match events.recv().await.expect("it runs") {
            Event::Listening { addr } => break addr,
            _ => continue,
        }
    };
    let (heard, received) = mpsc::unbounded_channel();
    let own = net.clone();
    let driver = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::Gossip { token, bytes, .. } = event {
                let bad = bytes.starts_with(BAD);
                let verdict = if bad { Verdict::Reject } else { Verdict::Accept };
                own.send(Command::Verdict { token, verdict }).await;
                let _ = heard.send(bytes);
            }
        }
    });
    Peer { id: key(n).id(), net, addr, received, driver }
}

/// What a swarm of `count` showed: see the table's heading.
#[derive(Debug)]
struct Seen {
    count: u8,
    /// Share of the honest messages that reached everybody honest.
    delivered: f64,
    /// The lowest score that anybody gave an honest peer, at any time.
    least_honest: f64,
    /// Seconds from its first bad message until every neighbour of the rogue took nothing of it.
    graylisted: Option<f64>,
}

/// Everybody connected with everybody; honest ones gossip at different rates, one of them never; the last
/// sends one bad message a second.
async fn observe(count: u8, seconds: u64) -> Seen {
    let members: BTreeSet<DeviceId> = (0..count).map(|n| key(n).id()).collect();
    let mut peers = Vec::new();
    for n in 0..count {
        peers.push(peer(n, &members).await);
    }
    for a in 0..peers.len() {
        for b in 0..a {
            let addr = format!("{}/p2p/{}", peers[b].addr, peers[b].net.peer_id_text());
            peers[a].net.send(Command::Dial { addr, peer: None }).await;
        }
    }
    // Connections, subscriptions, the first heartbeats.
    sleep(Duration::from_secs(4)).await;
    let rogue = peers.len() - 1;
    let rogue_id = peers[rogue].id;
    let began = Instant::now();
    let (mut sent, mut least_honest, mut graylisted) = (0u64, f64::MAX, None);
    let mut tick = 0u64;
    while began.elapsed() < Duration::from_secs(seconds) {
        for (n, one) in peers[..rogue].iter().enumerate() {
            // The first is quiet; of the others each is a little slower than the one before.
            let pace = if rogue == 1 { 3 } else { 2 + n as u64 };
            if (n > 0 || rogue == 1) && tick.is_multiple_of(pace) {
                let message = format!("good {n} {tick}").into_bytes();
                one.net.send(Command::Publish(message)).await;
                sent += 1;
            }
        }
        if tick.is_multiple_of(10) {
            let message = [BAD, format!(" {tick}").as_bytes()].concat();
            peers[rogue].net.send(Command::Publish(message)).await;
        }
        tick += 1;
        sleep(Duration::from_millis(100)).await;
        let mut all_deaf = true;
        for judge in &peers[..rogue] {
            let scores = judge.net.scores();
            all_deaf &= scores.get(&rogue_id).is_none_or(|score| *score <= GRAYLISTED);
            for (_, score) in scores.iter().filter(|(id, _)| **id != rogue_id) {
                least_honest = score.min(least_honest);
            }
        }
        if all_deaf && graylisted.is_none() {
            graylisted = Some(began.elapsed().as_secs_f64());
        }
    }
    sleep(Duration::from_secs(3)).await;
    let (mut arrived, mut due) = (0, 0);
    for one in &mut peers[..rogue] {
        let mut good = 0;
        while let Ok(message) = one.received.try_recv() {
            good += u64::from(!message.starts_with(BAD));
        }
        arrived += good;
        due += sent;
    }
    // Nobody hears itself: with one honest node there is nobody to hear it.
    let own = sent;
    let delivered = if due > own { arrived as f64 / (due - own) as f64 } else { 1.0 };
    for one in peers {
        one.net.send(Command::Shutdown).await;
        one.driver.abort();
    }
    let least_honest = if least_honest == f64::MAX { 0.0 } else { least_honest };
    Seen { count, delivered, least_honest, graylisted }
}

fn assert_fair(seen: &Seen) {
    assert!(seen.least_honest >= 0.0, "an honest peer sank: {seen:?}");
    assert!(seen.graylisted.is_some(), "the rogue is still heard: {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_message_a_second_shuts_out_its_sender_and_nobody_else() {
    for count in [2, 5] {
        let seen = observe(count, 12).await;
        assert_fair(&seen);
        assert!(seen.delivered > 0.99, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints a table; takes two minutes"]
async fn table() {
    println!("nodes  delivered  least honest score  one bad a second: graylisted after");
    for count in [2, 5, 20, 50] {
        let seen = observe(count, 20).await;
        println!(
            "{:>5}  {:>8.2}%  {:>18.2}  {:>32}",
            seen.count,
            seen.delivered * 100.0,
            seen.least_honest,
            seen.graylisted.map_or("-".into(), |s| format!("{s:.1} s"))
        );
        assert_fair(&seen);
    }
}
