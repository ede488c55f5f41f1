//! The demo's steps. Each does something, checks what came of it, and says so.

use std::time::{Duration, Instant};

use swarmkv_node::api::wire::{Data, WriteOp};
use swarmkv_node::protocol::id::Version;
use swarmkv_node::protocol::limits::GROUP_OPS;
use swarmkv_node::stranger;

use super::peers::{ALL, PATIENCE, Peers, Who, broke, check};
use super::tale::Tale;
use crate::error::Failure;
use crate::text;

/// Keys that change while carol is away.
const KEYS: usize = 500;
/// Times that each of them is written.
const ROUNDS: usize = 4;
/// Every so many of them are deleted at last.
const DELETED: usize = 10;
/// Long enough for a forged write to have spread, had it been taken.
const SPREAD: Duration = Duration::from_millis(300);

/// Tells it all.
pub async fn tell(peers: &mut Peers, tale: &mut Tale) -> Result<(), Failure> {
    meet(peers, tale).await?;
    put_and_get(peers, tale).await?;
    away_and_back(peers, tale).await?;
    apart(peers, tale).await?;
    outsider(peers, tale).await
}

async fn meet(peers: &mut Peers, tale: &mut Tale) -> Result<(), Failure> {
    tale.does("join", "alice founds a swarm; bob and carol join, each with a one-use ticket.")?;
    let begun = Instant::now();
    peers.found()?;
    peers.start(Who::Alice).await?;
    let mut words = Vec::new();
    for who in [Who::Bob, Who::Carol] {
        let joined = peers.admit(who).await?;
        check(joined.inviter == "alice", || format!("{} met {}", who.name(), joined.inviter))?;
        words.push(format!("{} {}", who.name(), joined.check_words));
        peers.start(who).await?;
    }
    peers.all_connected().await?;
    peers.all_whole().await?;
    let words = words.join(", ");
    tale.saw(begun.elapsed(), &format!("all three are connected; check words: {words}"))
}

async fn put_and_get(peers: &mut Peers, tale: &mut Tale) -> Result<(), Failure> {
    tale.does("put", "alice puts greeting = \"hello\".")?;
    let begun = Instant::now();
    let version = peers.handle(Who::Alice)?.put(b"greeting", b"hello").await.map_err(broke)?;
    tale.saw(begun.elapsed(), "it is on alice's disk")?;
    let arrival = async |who| {
        peers.handle(who)?.wait_for(&version, PATIENCE).await.map_err(broke)?;
        Ok::<_, Failure>((who, begun.elapsed()))
    };
    let (bob, carol) = tokio::try_join!(arrival(Who::Bob), arrival(Who::Carol))?;
    for (who, took) in [bob, carol] {
        shows(peers, who, b"greeting", Some(b"hello"))?;
        tale.saw(took, &format!("{} gets \"hello\" from its own copy", who.name()))?;
    }
    Ok(())
}

async fn away_and_back(peers: &mut Peers, tale: &mut Tale) -> Result<(), Failure> {
    let total = KEYS * ROUNDS + KEYS / DELETED;
    let writes = text::count(total as u64);
    tale.does(
        "catch_up",
        &format!("carol goes offline; alice makes {writes} writes and deletes."),
    )?;
    peers.stop(Who::Carol).await;
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let ops = (0..KEYS).map(|key| op(key, Some(round)));
        write(peers, ops.collect()).await?;
    }
    let deletes = (0..KEYS).step_by(DELETED).map(|key| op(key, None));
    let last = write(peers, deletes.collect()).await?;
    tale.saw(begun.elapsed(), "all are on alice's disk")?;
    let begun = Instant::now();
    peers.start(Who::Carol).await?;
    peers.handle(Who::Carol)?.wait_for(&last, PATIENCE).await.map_err(broke)?;
    peers.all_equal().await?;
    let took = begun.elapsed();
    for key in 0..KEYS {
        let left = (!key.is_multiple_of(DELETED)).then(|| value(ROUNDS - 1));
        shows(peers, Who::Carol, &name(key), left.as_deref())?;
    }
    let received = peers.status(Who::Carol).await?.counters.slots_received;
    check(received < total as u64, || format!("carol received {received} slots"))?;
    let received = text::count(received);
    tale.saw(took, &format!("carol is back and equal; she fetched {received} slots, no history"))
}

async fn apart(peers: &mut Peers, tale: &mut Tale) -> Result<(), Failure> {
    tale.does(
        "conflict",
        "alice and bob both write colour while apart, neither seeing the other.",
    )?;
    peers.stop(Who::Bob).await;
    let red = peers.handle(Who::Alice)?.put(b"colour", b"red").await.map_err(broke)?;
    peers.stop(Who::Alice).await;
    peers.stop(Who::Carol).await;
    peers.start(Who::Bob).await?;
    let blue = peers.handle(Who::Bob)?.put(b"colour", b"blue").await.map_err(broke)?;
    let begun = Instant::now();
    peers.start(Who::Alice).await?;
    peers.start(Who::Carol).await?;
    for who in ALL {
        for version in [&red, &blue] {
            peers.handle(who)?.wait_for(version, PATIENCE).await.map_err(broke)?;
        }
    }
    let took = begun.elapsed();
    let mut seen = Vec::new();
    for who in ALL {
        seen.push(peers.handle(who)?.siblings(b"colour").map_err(broke)?);
    }
    check(seen.windows(2).all(|pair| pair[0] == pair[1]), || "they show different values".into())?;
    let values: Vec<_> =
        seen[0].iter().flat_map(|s| s.value.as_ref()).map(|v| v.0.as_slice()).collect();
    let both = [b"red".as_slice(), b"blue"].iter().all(|value| values.contains(value));
    check(both && values.len() == 2, || format!("the siblings are {:?}", seen[0]))?;
    for who in ALL {
        shows(peers, who, b"colour", Some(values[0]))?;
    }
    let [shown, kept] = [0, 1].map(|i| String::from_utf8_lossy(values[i]).into_owned());
    tale.saw(
        took,
        &format!("together again: all show \"{shown}\"; \"{kept}\" is kept as a sibling"),
    )
}

async fn outsider(peers: &mut Peers, tale: &mut Tale) -> Result<(), Failure> {
    tale.does(
        "outsider",
        "An outsider knows alice's address and the swarm's id, and tries to get in.",
    )?;
    let alice = peers.handle(Who::Alice)?;
    let addrs = alice.wait_listening().await;
    let addr = addrs.first().ok_or_else(|| broke("alice listens nowhere"))?;
    let begun = Instant::now();
    let turned_away =
        stranger::try_to_write(addr, alice.device_id(), alice.swarm_id(), b"intruder", b"forged")
            .await
            .map_err(broke)?;
    tale.saw(begun.elapsed(), "three attempts over real connections, all turned away:")?;
    tale.also(&format!("its forged write: {}", turned_away.gossip))?;
    tale.also(&format!("its request for data: {}", turned_away.repair))?;
    tale.also(&format!("its made-up ticket: {}", turned_away.join))?;
    tokio::time::sleep(SPREAD).await;
    for who in ALL {
        let siblings = peers.handle(who)?.siblings(b"intruder").map_err(broke)?;
        check(siblings.is_empty(), || format!("{} holds the forged write", who.name()))?;
    }
    tale.saw(begun.elapsed(), "its key is on none of the three")
}

fn shows(peers: &Peers, who: Who, key: &[u8], wanted: Option<&[u8]>) -> Result<(), Failure> {
    let shown = peers.handle(who)?.get(key).map_err(broke)?;
    check(shown.as_deref() == wanted, || {
        let text = |value: Option<&[u8]>| value.map_or("nothing".into(), text::escaped);
        let (shown, wanted) = (text(shown.as_deref()), text(wanted));
        format!("{} shows {shown} on {}, not {wanted}", who.name(), text::escaped(key))
    })
}

/// Writes on alice; answers the last write's name.
async fn write(peers: &Peers, ops: Vec<WriteOp>) -> Result<Version, Failure> {
    let alice = peers.handle(Who::Alice)?;
    let mut last = None;
    for ops in ops.chunks(GROUP_OPS) {
        last = alice.write(ops.to_vec()).await.map_err(broke)?.pop();
    }
    last.ok_or_else(|| broke("a write has no name"))
}

fn op(key: usize, round: Option<usize>) -> WriteOp {
    WriteOp {
        key: Data(name(key)),
        value: round.map(|round| Data(value(round))),
        expires_at: None,
        if_absent: false,
        if_version: None,
    }
}

fn name(key: usize) -> Vec<u8> {
    format!("note/{key:03}").into_bytes()
}

fn value(round: usize) -> Vec<u8> {
    format!("draft {round}").into_bytes()
}
