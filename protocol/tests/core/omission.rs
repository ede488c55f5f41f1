//! A relay that leaves something out is found out, its claim is dropped, the log comes from elsewhere,
//! and the service never stops. And what is missing on the live path is asked for at once.

use std::cell::RefCell;
use std::rc::Rc;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::io::{Blame, Fault, Input};
use swarmkv_protocol::message::{self, Repair};
use swarmkv_protocol::op::{Body, Op};

use crate::swarm::{Swarm, delete};

const SOURCE: usize = 0;
const VICTIM: usize = 1;
const RELAY: usize = 2;

/// What the relay says to the victim goes through `lie`.
fn relay(swarm: &mut Swarm, mut lie: impl FnMut(Repair) -> Repair + 'static) {
    swarm.hook = Box::new(move |from, to, bytes| {
        if (from, to) != (RELAY, VICTIM) {
            return Some(bytes);
        }
        let message = message::decode(&bytes).expect("our own message");
        Some(message::encode(&lie(message)))
    });
}

fn complaints(swarm: &Swarm) -> usize {
    let plain = |fault: &&Fault| matches!(fault, Fault::Peer { blame: Blame::Nobody, .. });
    swarm.nodes[VICTIM].faults.iter().filter(plain).count()
}

fn heals(swarm: &mut Swarm) {
    swarm.connect(SOURCE, VICTIM);
    swarm.pass(90_000);
    assert!(swarm.equal());
}

#[test]
fn a_tombstone_left_out_is_missed_and_the_deleted_key_does_not_stay() {
    for newcomer in [true, false] {
        let mut swarm = Swarm::new(3);
        swarm.put(SOURCE, "k", "v");
        swarm.put(SOURCE, "other", "1");
        if !newcomer {
            swarm.connect(SOURCE, VICTIM);
            swarm.pass(5_000);
            swarm.disconnect_all(VICTIM);
        }
        swarm.write(SOURCE, vec![delete("k")]);
        swarm.put(SOURCE, "later", "1");
        swarm.connect(SOURCE, RELAY);
        swarm.pass(5_000);
        relay(&mut swarm, |message| match message {
            Repair::Slots(mut slots) => {
                slots.retain(|slot| {
                    let op = Op::read(&slot.op).expect("a sound slot");
                    op.body != Body::Delete
                });
                Repair::Slots(slots)
            }
            other => other,
        });
        swarm.connect(RELAY, VICTIM);
        swarm.pass(20_000);
        assert!(complaints(&swarm) > 0);
        assert_eq!(swarm.get(VICTIM, "later"), None, "the claim is dropped as a whole");
        let kept = (!newcomer).then_some("1");
        assert_eq!(swarm.get(VICTIM, "other").as_deref(), kept, "what was proven is still served");
        heals(&mut swarm);
        assert_eq!(swarm.get(VICTIM, "k"), None);
        assert_eq!(swarm.get(VICTIM, "later").as_deref(), Some("1"));
    }
}

#[test]
fn a_relay_that_shows_only_an_old_head_is_believed_that_far_and_no_further() {
    let mut swarm = Swarm::new(3);
    swarm.put(SOURCE, "a", "1");
    swarm.connect(SOURCE, RELAY);
    swarm.pass(5_000);
    swarm.disconnect_all(RELAY);
    swarm.put(SOURCE, "b", "1");
    // The relay never learns of "b" and yet says that it has it.
    relay(&mut swarm, |message| match message {
        Repair::Plan(mut plan) => {
            plan.logs.iter_mut().for_each(|planned| planned.seq += 1);
            Repair::Plan(plan)
        }
        other => other,
    });
    swarm.connect(RELAY, VICTIM);
    swarm.pass(20_000);
    assert_eq!(swarm.get(VICTIM, "a").as_deref(), Some("1"));
    heals(&mut swarm);
    assert_eq!(swarm.get(VICTIM, "b").as_deref(), Some("1"));
}

#[test]
fn a_log_that_proved_false_twice_is_fetched_whole() {
    let mut swarm = Swarm::new(4);
    swarm.put(SOURCE, "a", "1");
    swarm.connect(SOURCE, VICTIM);
    swarm.pass(5_000);
    swarm.disconnect_all(VICTIM);
    swarm.put(SOURCE, "b", "1");
    swarm.put(SOURCE, "c", "1");
    for n in [RELAY, 3] {
        swarm.connect(SOURCE, n);
    }
    swarm.pass(10_000);
    let starts = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&starts);
    swarm.hook = Box::new(move |from, to, bytes| {
        if to != VICTIM || from == SOURCE {
            return Some(bytes);
        }
        Some(match message::decode(&bytes) {
            Ok(Repair::Slots(mut slots)) => {
                slots.truncate(1);
                message::encode(&Repair::Slots(slots))
            }
            Ok(Repair::Start(start)) => {
                seen.borrow_mut().push(start.from);
                bytes
            }
            _ => bytes,
        })
    });
    swarm.connect(RELAY, VICTIM);
    swarm.connect(3, VICTIM);
    swarm.pass(300_000);
    assert!(starts.borrow().contains(&0), "asked for from the beginning");
    assert_eq!(swarm.get(VICTIM, "a").as_deref(), Some("1"), "the last proven state stands");
    heals(&mut swarm);
    assert_eq!(swarm.get(VICTIM, "c").as_deref(), Some("1"));
    assert!(swarm.nodes[VICTIM].engine.logs().iter().all(|log| !log.forked));
}

#[test]
fn a_slot_outside_its_authors_prefix_is_refused_in_repair_too() {
    let mut swarm = Swarm::granted(3, |n, grant| {
        if n == SOURCE + 1 {
            grant.prefix = Bytes("mine/".into());
        }
    });
    // Node 1 is the limited author here, node 0 takes its log from a relay that changes it.
    swarm.put(1, "mine/a", "1");
    swarm.connect(1, RELAY);
    swarm.pass(5_000);
    swarm.hook = Box::new(move |from, to, bytes| {
        if (from, to) != (RELAY, 0) {
            return Some(bytes);
        }
        Some(match message::decode(&bytes) {
            Ok(Repair::Slots(mut slots)) => {
                let mut op = Op::read(&slots[0].op).expect("a sound slot");
                op.cell.key = Bytes("yours/a".into());
                slots[0].op = Bytes(codec::encode(&op));
                message::encode(&Repair::Slots(slots))
            }
            _ => bytes,
        })
    });
    swarm.connect(RELAY, 0);
    swarm.pass(1_000);
    assert_eq!(swarm.get(0, "yours/a"), None);
    let damning = |fault: &Fault| matches!(fault, Fault::Peer { blame: Blame::Sender, .. });
    assert!(swarm.nodes[0].faults.iter().any(damning), "no honest relay could have it");
}

#[test]
fn a_gap_is_asked_for_at_once_though_another_session_stands_still() {
    let mut swarm = Swarm::new(4);
    for n in [RELAY, 3] {
        swarm.put(n, "theirs", "1");
    }
    swarm.hook = Box::new(|from, to, bytes| (from != RELAY || to != VICTIM).then_some(bytes));
    swarm.connect(RELAY, VICTIM);
    swarm.connect(SOURCE, VICTIM);
    swarm.put(SOURCE, "a", "1");
    swarm.put(SOURCE, "b", "1");
    let second = swarm.nodes[SOURCE].published[1].clone();
    let sessions = swarm.nodes[VICTIM].engine.counters();
    // No time passes here.
    swarm.hand_gossip(VICTIM, SOURCE, second);
    assert_eq!(swarm.get(VICTIM, "a").as_deref(), Some("1"));
    assert_eq!(swarm.get(VICTIM, "b").as_deref(), Some("1"));
    let after = swarm.nodes[VICTIM].engine.counters();
    assert_eq!(after.gap_pulls, sessions.gap_pulls + 1);
    assert_eq!(after.pulls, sessions.pulls, "the other one still stands");
}

#[test]
fn a_gap_costs_one_round_trip_and_nothing_of_other_logs() {
    let mut swarm = Swarm::new(3);
    for i in 0..50 {
        swarm.put(RELAY, &format!("other {i}"), "1");
    }
    swarm.connect(SOURCE, RELAY);
    swarm.pass(10_000);
    swarm.disconnect_all(RELAY);
    swarm.hook = Box::new(|_, _, _| None);
    swarm.connect(SOURCE, VICTIM);
    swarm.put(SOURCE, "a", "1");
    swarm.put(SOURCE, "b", "1");
    let second = swarm.nodes[SOURCE].published[1].clone();
    let frames = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&frames);
    swarm.hook = Box::new(move |from, _, bytes| {
        seen.borrow_mut().push((from, bytes.len()));
        Some(bytes)
    });
    let received = swarm.nodes[VICTIM].engine.counters().slots_received;
    swarm.hand_gossip(VICTIM, SOURCE, second);
    assert_eq!(swarm.get(VICTIM, "b").as_deref(), Some("1"));
    assert_eq!(swarm.nodes[VICTIM].engine.counters().slots_received, received + 2);
    let frames = frames.borrow();
    assert_eq!(frames[0].0, VICTIM);
    assert!(frames[1..].iter().all(|(from, _)| *from == SOURCE), "one request, then answers only");
    assert!(frames[0].1 < 120, "{} bytes ask for it", frames[0].1);
}

#[test]
fn floods_of_gaps_are_bounded() {
    let mut swarm = Swarm::new(6);
    swarm.hook = Box::new(|_, _, _| None);
    for n in [0, 2, 3, 4, 5] {
        swarm.connect(n, VICTIM);
    }
    for n in [0, 2, 3, 4, 5] {
        for i in 0..20 {
            swarm.put(n, &format!("{n} {i}"), "1");
        }
        for message in swarm.nodes[n].published.clone().into_iter().skip(1) {
            swarm.hand_gossip(VICTIM, n, message);
        }
    }
    assert!(swarm.nodes[VICTIM].engine.counters().gap_pulls <= 4);
    assert!(swarm.nodes[VICTIM].engine.held() <= 95);
    swarm.hook = Box::new(|_, _, bytes| Some(bytes));
    swarm.pass(120_000);
    assert_eq!(swarm.get(VICTIM, "5 19").as_deref(), Some("1"));
    swarm.input(VICTIM, Input::Tick);
    assert_eq!(swarm.nodes[VICTIM].engine.held(), 0);
}
