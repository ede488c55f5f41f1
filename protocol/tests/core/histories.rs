//! When one history of a log goes on from another: replicas that have the same ones decide alike, whatever
//! way they came by them.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::commit::SignedHeader;
use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::id::{Hash, Hash8};
use swarmkv_protocol::io::{Output, Verdict};
use swarmkv_protocol::message::{self, Completeness, Plan, Planned, Repair, SlotRecord, Start};
use swarmkv_protocol::time::Hlc;

use crate::swarm::Swarm;
use crate::swarm::author::{Author, parts};

const ROGUE: usize = 1;
const LINKED: usize = 0;
const WHOLE: usize = 2;
const FIRST: usize = 3;

/// A log in whose second commit the stamp falls back; the slots that are live after each, as a server that
/// does not mind sends them.
struct Falling {
    author: Author,
    first: Vec<u8>,
    third: Vec<u8>,
    slots: Vec<SlotRecord>,
}

fn falling(swarm: &Swarm) -> Falling {
    let mut author = Author::new(swarm, ROGUE, 1);
    let start = author.hlc;
    let (mut slots, mut messages) = (Vec::new(), Vec::new());
    for (n, (key, at)) in [("a", 1_000), ("b", 0), ("c", 2_000)].into_iter().enumerate() {
        author.hlc = start + at;
        let message = author.puts(&[key], "v");
        let op = parts(swarm, &message).1.remove(0);
        slots.push(SlotRecord { seq: n as u64 + 1, hlc: Hlc(author.hlc), op });
        messages.push(message);
    }
    let third = messages.pop().expect("three commits");
    Falling { author, first: messages.swap_remove(0), third, slots }
}

fn head(header: &Bytes) -> Hash {
    crypto::hash(Domain::Header, &[header])
}

/// The rogue serves `LINKED` the log up to its third commit: as if it went on from `base`, or whole.
fn serve(swarm: &mut Swarm, log: &Falling, base: Option<&Bytes>) {
    swarm.by_hand = Some(ROGUE);
    swarm.connect(ROGUE, LINKED);
    let session = *swarm.opened.last().expect("a comparison with the rogue");
    let roster = swarm.nodes[LINKED].engine.roster().hash();
    swarm.say(LINKED, session, &Repair::Differs(roster));
    let key = swarm.nodes[LINKED].log.iter().rev().find_map(|output| match output {
        Output::SendFrame(id, bytes) if *id == session => match message::decode(bytes) {
            Ok(Repair::Digest(digest)) => Some(digest.key),
            _ => None,
        },
        _ => None,
    });
    let (header, _) = parts(swarm, &log.third);
    let id = SignedHeader::decode(&header).expect("sound").claim().log;
    let logs = vec![Planned { log: id, seq: 3, head: head(&header), slots: 3 }];
    swarm.say(LINKED, session, &Repair::Plan(Plan { complete: Completeness::Complete, logs }));
    let from = u64::from(base.is_some());
    let short = |base: &Bytes| key.expect("a digest").short(&head(base));
    let base = base.map_or(Hash8::default(), short);
    let (compare, header2) = (false, header.clone());
    let start = Start { log: id, base, linked: true, from, compare, header: header2 };
    swarm.say(LINKED, session, &Repair::Start(start));
    let slots = log.slots.iter().filter(|slot| slot.seq > from).cloned().collect();
    swarm.say(LINKED, session, &Repair::Slots(slots));
    swarm.say(LINKED, session, &Repair::End(header));
    swarm.say(LINKED, session, &Repair::Done);
    swarm.disconnect_all(LINKED);
    swarm.by_hand = None;
}

fn histories(swarm: &Swarm, n: usize) -> usize {
    let author = swarm.nodes[ROGUE].id;
    let logs = swarm.nodes[n].engine.logs();
    logs.iter().filter(|log| log.branch.log.author == author && log.seq > 0).count()
}

/// One replica has the first commit and is served the third as if it went on from there, one is served that
/// whole, one has the first alone until it meets the second.
fn three_ways() -> (Swarm, Falling) {
    let mut swarm = Swarm::new(4);
    let log = falling(&swarm);
    let (first, _) = parts(&swarm, &log.first);
    swarm.hand_gossip(LINKED, ROGUE, log.first.clone());
    serve(&mut swarm, &log, Some(&first));
    swarm.pass(60_000);
    serve(&mut swarm, &log, None);
    swarm.pass(60_000);
    swarm.connect(LINKED, WHOLE);
    swarm.pass(60_000);
    swarm.disconnect_all(WHOLE);
    swarm.hand_gossip(FIRST, ROGUE, log.first.clone());
    swarm.connect(WHOLE, FIRST);
    swarm.pass(120_000);
    (swarm, log)
}

#[test]
fn what_falls_back_in_time_is_a_history_of_its_own_even_where_a_peer_calls_it_linked() {
    let (mut swarm, _) = three_ways();
    swarm.connect(LINKED, FIRST);
    swarm.pass(120_000);
    for n in [LINKED, WHOLE, FIRST] {
        assert_eq!(histories(&swarm, n), 2, "node {n}");
        assert_eq!(swarm.hash(n), swarm.hash(LINKED), "node {n}");
    }
    assert!(!swarm.damned());
}

#[test]
fn a_history_that_comes_to_hold_another_takes_its_place() {
    let (mut swarm, mut log) = three_ways();
    // What fell back is overwritten: nothing tells any more that the stamps ever did.
    let next = log.author.puts(&["b"], "again");
    assert_eq!(swarm.hand_gossip(LINKED, ROGUE, next), Verdict::Accept);
    swarm.connect(LINKED, FIRST);
    swarm.pass(120_000);
    for n in [LINKED, WHOLE, FIRST] {
        assert_eq!(histories(&swarm, n), 1, "node {n}");
        assert_eq!(swarm.hash(n), swarm.hash(LINKED), "node {n}");
        assert_eq!(swarm.get(n, "b").as_deref(), Some("again"), "node {n}");
    }
    assert!(!swarm.damned());
}
