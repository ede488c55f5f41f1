//! What one peer can do to repair: drip, fall silent, send junk, race with gossip, lose its connection on one
//! side. The others' repair goes on, and nothing is fetched twice.

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::SignedHeader;
use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::digest::{DigestKey, Entry};
use swarmkv_protocol::id::{Hash, Hash8, LogId};
use swarmkv_protocol::io::{Blame, Change, Fault, Input, Output, SessionId, WriteRefused};
use swarmkv_protocol::limits::{DIGEST_ENTRIES, MAX_LOGS};
use swarmkv_protocol::message::{
    self, Completeness, Names, Plan, Planned, Repair, SlotRecord, Start, Sums,
};
use swarmkv_protocol::roster::Role;
use swarmkv_protocol::store::{Store as _, Write};
use swarmkv_protocol::time::Hlc;

use crate::swarm;
use crate::swarm::author::{Author, op, parts};
use crate::swarm::{Swarm, delete, put};

const HONEST: usize = 0;
const ROGUE: usize = 1;
const VICTIM: usize = 2;

/// The frames that the victim has sent to the rogue.
fn frames(swarm: &Swarm, session: SessionId) -> Vec<Repair> {
    let sent = swarm.nodes[VICTIM].log.iter().filter_map(|output| match output {
        Output::SendFrame(id, bytes) if *id == session => message::decode(bytes).ok(),
        _ => None,
    });
    sent.collect()
}

/// The victim compares with the rogue, which has got as far as its plan.
fn planned(swarm: &mut Swarm, logs: Vec<Planned>) -> (SessionId, DigestKey) {
    swarm.by_hand = Some(ROGUE);
    swarm.connect(ROGUE, VICTIM);
    let session = *swarm.opened.last().expect("the victim compares with the rogue");
    let roster = swarm.nodes[VICTIM].engine.roster().hash();
    swarm.say(VICTIM, session, &Repair::Differs(roster));
    let key = frames(swarm, session).into_iter().find_map(|frame| match frame {
        Repair::Digest(digest) => Some(digest.key),
        _ => None,
    });
    swarm.say(VICTIM, session, &Repair::Plan(Plan { complete: Completeness::Complete, logs }));
    (session, key.unwrap_or_default())
}

fn junk(seq: u64) -> Repair {
    let op = Bytes(codec::encode(&op("junk", "x")));
    Repair::Slots(vec![SlotRecord { seq, hlc: Hlc(u64::MAX), op }])
}

#[test]
fn a_member_that_drips_frames_holds_nothing_up() {
    let mut swarm = Swarm::granted(3, |n, grant| {
        if n == ROGUE {
            grant.role = Role::Reader;
        }
    });
    for i in 0..5 {
        swarm.put(HONEST, &format!("a{i}"), "v");
    }
    let (session, _) = planned(&mut swarm, Vec::new());
    swarm.connect(HONEST, VICTIM);
    for i in 1..60 {
        swarm.pass(9_000);
        swarm.say(VICTIM, session, &junk(i));
    }
    assert_eq!(swarm.get(VICTIM, "a4").as_deref(), Some("v"));
    assert!(swarm.nodes[VICTIM].engine.caught_up());
    // And it is asked ever less often.
    assert!(swarm.opened.len() < 12, "{} sessions in nine minutes", swarm.opened.len());
}

#[test]
fn a_member_that_wants_answers_and_takes_none_does_not_make_them_pile_up() {
    for frame in [
        Repair::Names(Names { names: Vec::new(), upto: 9 }),
        Repair::Sums(Sums { blocks: Vec::new(), last: true }),
    ] {
        let mut swarm = Swarm::new(3);
        let (session, _) = planned(&mut swarm, Vec::new());
        let frame = message::encode(&frame);
        // The session never says that it could take another frame.
        for _ in 0..4 {
            swarm.input(VICTIM, Input::SessionFrame(session, frame.clone()));
        }
        let faults = &swarm.nodes[VICTIM].faults;
        assert!(matches!(faults[..], [Fault::Peer { blame: Blame::Nobody, .. }]), "{faults:?}");
    }
}

/// What the rogue would have of the honest one's log, if it told the truth.
fn offered(swarm: &Swarm) -> Planned {
    let log = swarm.nodes[HONEST].engine.own_log();
    Planned { log, seq: 1_000, head: Hash::new([9; 32]), slots: 1_000_000 }
}

#[test]
fn who_offers_a_log_and_is_silent_keeps_it_from_nobody() {
    let mut swarm = Swarm::new(3);
    swarm.put(HONEST, "a", "v");
    let plan = offered(&swarm);
    planned(&mut swarm, vec![plan]);
    swarm.connect(HONEST, VICTIM);
    swarm.pass(12_000);
    assert_eq!(swarm.get(VICTIM, "a").as_deref(), Some("v"));
}

#[test]
fn who_offers_a_log_and_is_silent_does_not_hold_up_what_is_announced_of_it() {
    let mut swarm = Swarm::new(3);
    swarm.put(HONEST, "a", "v");
    swarm.gossip = true;
    swarm.connect(HONEST, VICTIM);
    swarm.pass(10_000);
    let plan = offered(&swarm);
    planned(&mut swarm, vec![plan]);
    // Too large for gossip: its header is spread, and it is pulled.
    let large = "x".repeat(20 * 1024);
    swarm.put(HONEST, "large", &large);
    assert_eq!(swarm.get(VICTIM, "large"), None, "it is offered by the other one as well");
    swarm.pass(6_000);
    assert_eq!(swarm.get(VICTIM, "large"), Some(large));
}

#[test]
fn a_log_that_a_peer_has_begun_to_send_goes_on_by_gossip() {
    let mut swarm = Swarm::new(3);
    swarm.put(HONEST, "a", "1");
    swarm.hand_all(HONEST, VICTIM);
    swarm.put(HONEST, "a", "2");
    let messages = swarm.nodes[HONEST].published.clone();
    let (header, _) = parts(&swarm, &messages[1]);
    let (first, _) = parts(&swarm, &messages[0]);
    let claim = SignedHeader::decode(&header).expect("sound").claim().clone();
    let head = crypto::hash(Domain::Header, &[&header]);
    let plan = Planned { log: claim.log, seq: 2, head, slots: 1 };
    let (session, key) = planned(&mut swarm, vec![plan]);
    let base = key.short(&crypto::hash(Domain::Header, &[&first]));
    let start = Start { log: claim.log, base, linked: true, from: 1, compare: false, header };
    swarm.say(VICTIM, session, &Repair::Start(start));
    swarm.say(VICTIM, session, &junk(2));
    assert!(swarm.nodes[VICTIM].engine.logs().iter().any(|log| log.staged == 2), "it was taken");
    swarm.gossip = true;
    swarm.connect(HONEST, VICTIM);
    for i in 0..60 {
        swarm.pass(9_000);
        swarm.say(VICTIM, session, &junk(3 + i));
        swarm.put(HONEST, "a", &format!("later {i}"));
        // The log is left to that peer alone for a moment, not for longer.
        if i > 3 {
            assert_eq!(swarm.get(VICTIM, "a"), Some(format!("later {i}")));
        }
    }
    assert_eq!(swarm.get(VICTIM, "junk"), None);
    assert_eq!(swarm.nodes[VICTIM].engine.held(), 0);
    swarm.pass(60_000);
    assert_eq!(swarm.hash(HONEST), swarm.hash(VICTIM));
}

#[test]
fn what_gossip_brings_while_a_log_is_sent_is_not_asked_for_again() {
    let mut swarm = Swarm::new(4);
    let mut author = Author::new(&swarm, 3, 7);
    let mut messages = Vec::new();
    for c in 0..10 {
        let keys: Vec<String> = (0..200).map(|i| format!("k{}", c * 200 + i)).collect();
        messages.push(author.puts(&keys.iter().map(String::as_str).collect::<Vec<_>>(), "v"));
    }
    for i in 0..12 {
        messages.push(author.puts(&[&format!("s{i}")], "v"));
    }
    // The honest one got the log by repair: it does not know the header at which the victim stands.
    for message in &messages[..16] {
        swarm.hand_gossip(ROGUE, 3, message.clone());
    }
    swarm.connect(ROGUE, HONEST);
    swarm.pass(20_000);
    swarm.disconnect_all(HONEST);
    for message in &messages[..12] {
        swarm.hand_gossip(VICTIM, 3, message.clone());
    }
    // Gossip overtakes repair at every frame.
    let mut next = 12;
    let overtaking = messages.clone();
    let pending = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let due = std::rc::Rc::clone(&pending);
    swarm.hook = Box::new(move |_, to, bytes| {
        if to == VICTIM && next < 20 {
            due.borrow_mut().push(overtaking[next].clone());
            next += 1;
        }
        Some(bytes)
    });
    swarm.connect(HONEST, VICTIM);
    for _ in 0..30 {
        let overtaken: Vec<Vec<u8>> = pending.borrow_mut().drain(..).collect();
        for message in overtaken {
            swarm.hand_gossip(VICTIM, 3, message);
        }
        swarm.pass(2_000);
    }
    for message in &messages[16..] {
        swarm.hand_gossip(VICTIM, 3, message.clone());
    }
    assert_eq!(swarm.get(VICTIM, "s11").as_deref(), Some("v"));
    let received = swarm.nodes[VICTIM].engine.counters().slots_received;
    assert!(received < 100, "{received} slots for a handful of commits");
}

#[test]
fn a_reconnection_that_one_side_missed_costs_a_digest_and_not_the_data() {
    let mut swarm = Swarm::new(2);
    for i in 0..300 {
        swarm.put(0, &format!("a{i}"), "v");
        swarm.put(1, &format!("c{i}"), "v");
    }
    swarm.connect(0, 1);
    swarm.pass(60_000);
    assert!(swarm.equal());
    for i in 0..5 {
        let other = swarm.nodes[1].id;
        swarm.input(0, Input::Disconnected(other));
        swarm.input(0, Input::Connected(other));
        swarm.put(0, &format!("one more {i}"), "v");
        swarm.pass(60_000);
    }
    assert!(swarm.equal());
    for n in 0..2 {
        let received = swarm.nodes[n].engine.counters().slots_received;
        assert!(received < 320, "node {n} received {received} slots");
    }
}

#[test]
fn what_is_set_aside_or_held_goes_with_its_author_and_with_time() {
    let mut swarm = Swarm::new(4);
    let mut author = Author::new(&swarm, 3, 1);
    let first = author.puts(&["a"], "1");
    let second = author.puts(&["a"], "2");
    let third = author.puts(&["a"], "3");
    swarm.hand_gossip(VICTIM, 3, third.clone());
    assert_eq!(swarm.nodes[VICTIM].engine.held(), 1);
    swarm.pass(120_000);
    assert_eq!(swarm.nodes[VICTIM].engine.held(), 0, "it has waited long enough");
    swarm.hand_gossip(VICTIM, 3, third);
    let (token, device) = (swarm.token(), swarm.nodes[3].id);
    swarm.input(HONEST, Input::Revoke { token, device });
    swarm.hand_all(HONEST, VICTIM);
    assert_eq!(swarm.nodes[VICTIM].engine.held(), 0, "its author is no member any more");
    for message in [first, second] {
        swarm.hand_gossip(VICTIM, 3, message);
    }
    assert_eq!(swarm.get(VICTIM, "a"), None);
}

#[test]
fn a_damaged_slot_that_is_staged_does_not_keep_a_replica_busy() {
    let mut swarm = Swarm::new(3);
    for i in 0..50 {
        swarm.put(HONEST, &format!("k{i}"), &"x".repeat(10_000));
    }
    // The last frame never comes: slots lie staged.
    swarm.hook = Box::new(|_, to, bytes| {
        let end = matches!(message::decode(&bytes), Ok(Repair::End(_)));
        (to != VICTIM || !end).then_some(bytes)
    });
    swarm.connect(HONEST, VICTIM);
    swarm.pass(5_000);
    let disk = swarm.nodes[VICTIM].disk.clone();
    let mut slot = disk.slots(&swarm::cell("k7")).expect("memory").remove(0);
    slot.op = Bytes::default();
    disk.0.borrow_mut().apply(vec![Write::Slot { key: swarm::cell("k7"), slot }]);
    swarm.hook = Box::new(|_, _, bytes| Some(bytes));
    let before = swarm.nodes[VICTIM].log.len();
    swarm.restart(VICTIM);
    swarm.connect(HONEST, VICTIM);
    swarm.pass(60_000);
    // A reader would have said so; here it is scrubbing that finds it.
    swarm.input(VICTIM, Input::Scrub);
    swarm.pass(240_000);
    assert_eq!(swarm.get(VICTIM, "k7").map(|v| v.len()), Some(10_000));
    assert!(swarm.nodes[VICTIM].log.len() < before + 5_000, "it does not turn in circles");
    assert_eq!(swarm.hash(HONEST), swarm.hash(VICTIM));
}

#[test]
fn a_condition_is_not_judged_before_the_replica_is_complete() {
    let mut swarm = Swarm::new(2);
    swarm.put(0, "k", "there");
    let absent = Some(swarmkv_protocol::io::Condition::Absent);
    let change = || Change { condition: absent.clone(), ..put("k", "mine") };
    assert_eq!(swarm.try_write(1, vec![change()]), Err(WriteRefused::CatchingUp));
    assert_eq!(swarm.try_write(1, vec![put("other", "v")]), Ok(()), "others are taken");
    swarm.connect(0, 1);
    swarm.pass(20_000);
    assert!(matches!(swarm.try_write(1, vec![change()]), Err(WriteRefused::Condition(_))));
}

#[test]
fn a_member_that_pulls_everything_over_and_over_is_served_slowly() {
    let mut swarm = Swarm::new(3);
    for i in 0..40 {
        swarm.put(HONEST, &format!("k{i}"), &"x".repeat(200_000));
    }
    let ask = |swarm: &mut Swarm, session: u64| {
        let (id, rogue) = (SessionId(session * 2 + 1), swarm.nodes[ROGUE].id);
        let now = swarm.now();
        let engine = &mut swarm.nodes[HONEST].engine;
        let nothing = message::Digest {
            statements: Vec::new(),
            key: DigestKey::default(),
            number: session + 1,
            since: 0,
            entries: Vec::new(),
            only: Vec::new(),
            then: message::Then::Send,
        };
        let _ = engine.handle(now, Input::SessionOpened(id, rogue));
        let _ = engine.handle(now, Input::SessionReady(id));
        let digest = message::encode(&Repair::Digest(nothing));
        let _ = engine.handle(now, Input::SessionFrame(id, digest));
        let mut sent = 0;
        for _ in 0..500 {
            let _ = engine.handle(now, Input::SessionReady(id));
            while let Some(output) = engine.poll_output() {
                if let Output::SendFrame(_, bytes) = output {
                    sent += bytes.len();
                }
            }
        }
        let _ = engine.handle(now, Input::SessionClosed(id));
        sent
    };
    let (honest, rogue) = (swarm.nodes[HONEST].id, swarm.nodes[ROGUE].id);
    swarm.input(HONEST, Input::Connected(rogue));
    let first = ask(&mut swarm, 100);
    assert!(first > 8_000_000, "a newcomer gets everything at once: {first}");
    let again: usize = (101..110).map(|session| ask(&mut swarm, session)).sum();
    assert!(again < 2 * first, "{again} bytes more at once");
    let _ = honest;
}

#[test]
fn heads_cut_short_look_different_on_every_connection() {
    let hash = Hash::new([7; 32]);
    let (a, b) = (DigestKey([1; 16]), DigestKey([2; 16]));
    assert_ne!(a.short(&hash), b.short(&hash));
    assert_eq!(a.short(&Hash::default()), Hash8::default(), "nothing stays nothing");
}

#[test]
fn values_win_over_deletes_that_did_not_see_them() {
    let mut swarm = Swarm::new(3);
    swarm.put(0, "k", "first");
    swarm.hand_all(0, 1);
    // One edits, the other deletes later, neither has heard of the other.
    swarm.put(0, "k", "edit");
    swarm.wall += 1_000;
    swarm.write(1, vec![delete("k")]);
    // And a value for ever is not hidden behind one that has expired.
    swarm.put(0, "lasting", "v");
    swarm.wall += 1_000;
    let expires_at = Some(swarm.wall + 5_000);
    swarm.write(1, vec![Change { expires_at, ..put("lasting", "short") }]);
    swarm.connect(0, 1);
    swarm.connect(1, 2);
    swarm.pass(30_000);
    for n in 0..3 {
        assert_eq!(swarm.get(n, "k").as_deref(), Some("edit"), "node {n}");
        assert_eq!(swarm.get(n, "lasting").as_deref(), Some("v"), "node {n}");
    }
    swarm.write(2, vec![delete("k")]);
    swarm.pass(30_000);
    assert_eq!(swarm.get(0, "k"), None, "what saw it removes it");
}

#[test]
fn counters_add_up_and_a_delete_takes_what_it_saw() {
    let mut swarm = Swarm::new(3);
    let add = |n: i64| Change::add(b"c".as_slice(), n);
    swarm.write(0, vec![add(5)]);
    swarm.hand_all(0, 1);
    swarm.write(1, vec![add(3)]);
    assert_eq!(swarm.get(1, "c").as_deref(), Some("8"));
    swarm.write(0, vec![add(-1), add(-1)]);
    swarm.hand_all(1, 0);
    swarm.hand_all(0, 1);
    assert_eq!(swarm.get(0, "c").as_deref(), Some("6"));
    assert_eq!(swarm.get(1, "c").as_deref(), Some("6"));
    // A delete beside an add that it did not see.
    swarm.write(0, vec![delete("c")]);
    swarm.write(1, vec![add(10)]);
    swarm.hand_all(1, 0);
    swarm.hand_all(0, 1);
    assert_eq!(swarm.get(0, "c").as_deref(), Some("10"));
    assert_eq!(swarm.get(1, "c").as_deref(), Some("10"));
    // Two that add to the same number count it once.
    swarm.put(0, "n", "5");
    swarm.hand_all(0, 1);
    for n in 0..2 {
        swarm.write(n, vec![Change::add(b"n".as_slice(), 1)]);
    }
    swarm.hand_all(1, 0);
    assert_eq!(swarm.get(0, "n").as_deref(), Some("7"));
    assert!(matches!(
        swarm
            .try_write(0, vec![put("t", "text")])
            .and_then(|()| swarm.try_write(0, vec![Change::add(b"t".as_slice(), 1)])),
        Err(WriteRefused::Invalid(_))
    ));
    // Setting and adding over and over does not end in a refusal.
    for i in 0..600 {
        swarm.put(0, "r", &i.to_string());
        swarm.write(0, vec![Change::add(b"r".as_slice(), 1)]);
        assert_eq!(swarm.get(0, "r"), Some((i + 1).to_string()));
    }
}

#[test]
fn what_a_write_overwrote_stays_overwritten_through_damage() {
    let mut swarm = Swarm::new(3);
    swarm.wall += 60_000; // node 1's clock is a minute fast
    swarm.put(1, "k", "old");
    swarm.wall -= 60_000;
    swarm.hand_all(1, 2);
    swarm.hand_all(1, 0);
    swarm.write(2, vec![delete("k")]);
    swarm.put(1, "other", "x");
    swarm.hand_all(1, 2);
    swarm.hand_all(1, 0);
    // Node 2 loses the log that it overwrote, and deletes once more.
    let disk = swarm.nodes[2].disk.clone();
    let author = swarm.nodes[1].id;
    let slots = disk.slots(&swarm::cell("other")).expect("memory");
    let mut slot = slots.into_iter().find(|s| s.branch.log.author == author).expect("there");
    slot.op = Bytes::default();
    disk.0.borrow_mut().apply(vec![Write::Slot { key: swarm::cell("other"), slot }]);
    swarm.input(2, Input::Scrub);
    swarm.pass(2_000);
    swarm.write(2, vec![delete("k")]);
    swarm.connect(0, 2);
    swarm.pass(30_000);
    assert_eq!((swarm.get(2, "k"), swarm.get(0, "k")), (None, None));
}

/// One device signed two histories of equal length and stamps; two replicas know one each and meet.
fn two_histories_meet() -> [Option<String>; 2] {
    let mut swarm = Swarm::new(4);
    swarm.put(1, "x", "0");
    let before = swarm.copy(1);
    swarm.put(1, "k", "one");
    swarm.hand_all(1, 0);
    let old = swarm.nodes[1].published[0].clone();
    swarm.put_back(1, &before, false);
    swarm.put(1, "k", "two");
    swarm.hand_gossip(2, 1, old);
    swarm.hand_all(1, 2);
    swarm.connect(0, 2);
    swarm.pass(120_000);
    assert_eq!(swarm.hash(0), swarm.hash(2));
    [swarm.get(0, "k"), swarm.get(2, "k")]
}

#[test]
fn equal_stamps_of_two_histories_show_the_same_everywhere() {
    let [a, b] = two_histories_meet();
    assert!(a.is_some() && a == b, "{a:?} {b:?}");
}

#[cfg(feature = "plant")]
#[test]
fn they_would_not_if_digests_said_nothing_of_heads() {
    use swarmkv_protocol::plant::{Plant, plant};
    plant(Some(Plant::DigestWithoutHeads));
    let [a, b] = two_histories_meet();
    plant(None);
    assert_ne!(a, b, "the fault was planted and shows");
}

#[test]
fn what_can_be_read_of_a_damaged_log_is_kept_though_the_quota_is_full() {
    let mut swarm = Swarm::granted(2, |n, grant| {
        if n == 1 {
            grant.max_bytes = Some(2_000);
        }
    });
    swarm.nodes[1].disk.0.borrow_mut().apply(vec![Write::CaughtUp(true)]);
    for i in 0..10 {
        swarm.put(1, &format!("k{i}"), &"x".repeat(100));
    }
    let disk = swarm.nodes[1].disk.clone();
    let mut slot = disk.slots(&swarm::cell("k3")).expect("memory").remove(0);
    slot.op = Bytes::default();
    disk.0.borrow_mut().apply(vec![Write::Slot { key: swarm::cell("k3"), slot }]);
    swarm.input(1, Input::Scrub);
    swarm.pass(2_000);
    swarm.connect(0, 1);
    swarm.pass(60_000);
    for n in 0..2 {
        let left = (0..10).filter(|i| swarm.get(n, &format!("k{i}")).is_some()).count();
        assert_eq!(left, 9, "node {n}");
    }
}

#[test]
fn what_a_peer_tells_of_logs_that_nobody_has_is_remembered_within_bounds() {
    let mut swarm = Swarm::new(3);
    let (rogue, author) = (swarm.nodes[ROGUE].id, swarm.nodes[VICTIM].id);
    swarm.input(HONEST, Input::Connected(rogue));
    let told = MAX_LOGS / DIGEST_ENTRIES + 4;
    for n in 0..told as u64 {
        let log = |i| LogId { author, epoch: n * DIGEST_ENTRIES as u64 + i, shard: 0 };
        let head = Hash8::new([1; 8]);
        let entry =
            |i| Entry { log: log(i), seq: 1, head, staged: 0, refused: None, compare: false };
        let digest = message::Digest {
            statements: Vec::new(),
            key: DigestKey::default(),
            number: n + 1,
            since: n,
            entries: (0..DIGEST_ENTRIES as u64).map(entry).collect(),
            only: Vec::new(),
            then: message::Then::Send,
        };
        let session = SessionId(2 * n + 1);
        swarm.input(HONEST, Input::SessionOpened(session, rogue));
        swarm.say(HONEST, session, &Repair::Digest(digest));
        swarm.input(HONEST, Input::SessionClosed(session));
    }
    let ahead = swarm.nodes[HONEST].engine.peers()[0].ahead;
    assert!(ahead > 0 && ahead <= MAX_LOGS as u64, "{ahead} logs remembered");
}
