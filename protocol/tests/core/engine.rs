//! The engine's behaviour in single situations: gaps, cuts, lies, copies, clocks.

use std::cell::Cell;
use std::rc::Rc;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::{self, SignedHeader};
use swarmkv_protocol::crypto::{DeviceKey, Domain};
use swarmkv_protocol::id::{Hash, Hash8};
use swarmkv_protocol::io::{Blame, Change, Edit, Fault, Input, Output, Verdict, WriteRefused};
use swarmkv_protocol::limits::MAX_GOSSIP_VALUE;
use swarmkv_protocol::message::{self, Gossip, Repair};
use swarmkv_protocol::op::{Body, Op};

use crate::swarm;
use crate::swarm::{Swarm, put};

#[test]
fn commits_held_behind_a_gap_are_applied_in_order_once_it_is_filled() {
    let mut swarm = Swarm::new(2);
    for i in 0..6 {
        // One key over and over: each commit's sums rest on what the one before it wrote.
        swarm.put(0, "k", &format!("value {i}"));
    }
    let messages = swarm.nodes[0].published.clone();
    for bytes in messages.iter().skip(1) {
        assert_eq!(swarm.hand_gossip(1, 0, bytes.clone()), Verdict::Accept);
    }
    assert_eq!(swarm.nodes[1].engine.held(), 5);
    swarm.hand_gossip(1, 0, messages[0].clone());
    swarm.pass(1);
    assert_eq!(swarm.get(1, "k").as_deref(), Some("value 5"));
    assert_eq!(swarm.nodes[1].engine.held(), 0);
    assert!(swarm.nodes[1].engine.logs().iter().all(|log| log.frozen.is_none()));
}

#[test]
fn a_write_that_does_not_fit_its_cell_is_refused_before_it_is_signed() {
    let mut swarm = Swarm::new(2);
    swarm.gossip = true;
    swarm.connect(0, 1);
    let element = swarmkv_protocol::model::cell::Cell {
        key: b"k".as_slice().into(),
        tag: swarmkv_protocol::model::cell::Tag::Set,
        field: Some(b"one".as_slice().into()),
    };
    for edit in [Edit::Put(b"v".as_slice().into()), Edit::Add(1)] {
        let change = Change { cell: element.clone(), edit, expires_at: None, condition: None };
        let refused = swarm.try_write(0, vec![change]);
        assert!(matches!(refused, Err(WriteRefused::Invalid(_))), "{refused:?}");
    }
    swarm.pass(10_000);
    assert!(!swarm.damned(), "nobody is blamed");
}

#[test]
fn a_gap_is_pulled_at_once() {
    let mut swarm = Swarm::new(2);
    swarm.connect(0, 1);
    swarm.put(0, "a", "1");
    swarm.put(0, "b", "2");
    let second = swarm.nodes[0].published[1].clone();
    swarm.hand_gossip(1, 0, second);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("1"));
    assert!(swarm.equal());
}

#[test]
fn a_large_value_is_announced_and_pulled() {
    let mut swarm = Swarm::new(2);
    swarm.gossip = true;
    swarm.connect(0, 1);
    let value = "x".repeat(MAX_GOSSIP_VALUE + 1);
    swarm.put(0, "big", &value);
    let message = message::decode(&swarm.nodes[0].published[0]).expect("our own message");
    assert!(matches!(message, Gossip::Announce(_)));
    assert_eq!(swarm.get(1, "big"), Some(value));
}

#[test]
fn a_replayed_commit_is_ignored_and_not_passed_on() {
    let mut swarm = Swarm::new(2);
    swarm.put(0, "k", "v");
    let bytes = swarm.nodes[0].published[0].clone();
    assert_eq!(swarm.hand_gossip(1, 0, bytes.clone()), Verdict::Accept);
    let before = swarm.nodes[1].engine.state_hash();
    assert_eq!(swarm.hand_gossip(1, 0, bytes), Verdict::Ignore);
    assert_eq!(swarm.nodes[1].engine.state_hash(), before);
    assert!(swarm.nodes[1].faults.is_empty());
}

#[test]
fn a_connected_pair_tells_only_what_changed() {
    let mut swarm = Swarm::new(6);
    for n in 0..6 {
        swarm.put(n, "a", "1");
    }
    for n in 1..6 {
        swarm.connect(0, n);
    }
    swarm.pass(60_000);
    for n in 2..6 {
        swarm.disconnect_all(n);
    }
    // Whoever was always equal has told nothing yet: its first digest is a full one.
    for n in [0, 1, 0, 1] {
        swarm.put(n, "d", "4");
        swarm.pass(20_000);
    }
    let entries = Rc::new(Cell::new(0));
    let count = Rc::clone(&entries);
    swarm.hook = Box::new(move |_, _, bytes| {
        if let Ok(Repair::Digest(digest)) = message::decode(&bytes) {
            count.set(count.get().max(digest.entries.len()));
        }
        Some(bytes)
    });
    swarm.put(0, "c", "3");
    swarm.pass(20_000);
    assert_eq!(swarm.get(1, "c").as_deref(), Some("3"));
    assert!(entries.get() <= 2, "{} entries were told again", entries.get());
}

#[test]
fn a_newcomer_is_whole_only_after_all_of_a_whole_peer_arrived() {
    let mut swarm = Swarm::new(3);
    swarm.put(0, "k", "v");
    // Two newcomers agree with each other and know nothing.
    swarm.connect(1, 2);
    swarm.pass(10_000);
    assert!(!swarm.nodes[1].engine.caught_up() && !swarm.nodes[2].engine.caught_up());
    swarm.connect(0, 1);
    swarm.pass(10_000);
    assert!(swarm.nodes[1].engine.caught_up());
    assert!(swarm.nodes[2].engine.caught_up());
    assert_eq!(swarm.get(2, "k").as_deref(), Some("v"));
}

/// A source with enough to take several frames.
fn long_log(swarm: &mut Swarm) {
    for i in 0..40 {
        swarm.put(0, &format!("key {i}"), &"x".repeat(15_000));
    }
}

/// Lets only so many chunks of slots pass and nothing after them, and counts slots.
fn cut_after(swarm: &mut Swarm, chunks: u32) -> Rc<Cell<usize>> {
    let (slots, left) = (Rc::new(Cell::new(0)), Cell::new(chunks));
    let count = Rc::clone(&slots);
    swarm.hook = Box::new(move |_, _, bytes| {
        if left.get() == 0 {
            return None;
        }
        if let Ok(Repair::Slots(chunk)) = message::decode(&bytes) {
            left.set(left.get() - 1);
            count.set(count.get() + chunk.len());
        }
        Some(bytes)
    });
    slots
}

#[test]
fn a_stream_cut_in_the_middle_goes_on_where_it_stood_even_over_a_restart() {
    let mut swarm = Swarm::new(2);
    long_log(&mut swarm);
    let first = cut_after(&mut swarm, 2);
    swarm.connect(0, 1);
    assert!(first.get() > 0 && first.get() < 40);
    swarm.restart(1);
    assert_eq!(swarm.get(1, "key 0"), None, "what is staged is not shown");
    let second = cut_after(&mut swarm, u32::MAX);
    swarm.connect(0, 1);
    swarm.pass(30_000);
    assert!(swarm.equal());
    assert_eq!(first.get() + second.get(), 40);
}

#[test]
fn a_peer_behind_what_is_staged_is_not_blamed_and_can_still_help() {
    let mut swarm = Swarm::new(3);
    for i in 0..20 {
        swarm.put(0, &format!("key {i}"), &"x".repeat(15_000));
    }
    // Node 2 has the first half, all proven.
    swarm.connect(0, 2);
    swarm.pass(10_000);
    swarm.disconnect_all(2);
    for i in 20..40 {
        swarm.put(0, &format!("key {i}"), &"x".repeat(15_000));
    }
    // Node 1 sets more than that aside and loses its source.
    let staged = cut_after(&mut swarm, 4);
    swarm.connect(0, 1);
    assert!(staged.get() > 20);
    swarm.disconnect_all(1);
    swarm.hook = Box::new(|_, _, bytes| Some(bytes));
    swarm.connect(1, 2);
    swarm.pass(30_000);
    assert!(!swarm.damned());
    assert_eq!(swarm.get(1, "key 0"), swarm.get(2, "key 0"));
    assert!(swarm.get(1, "key 0").is_some());
}

#[test]
fn a_relay_that_leaves_out_or_changes_a_slot_is_not_believed_and_another_is_asked() {
    for lie in 0..3 {
        let mut swarm = Swarm::new(3);
        swarm.put(0, "a", "1");
        swarm.put(0, "b", "2");
        swarm.connect(0, 2);
        swarm.pass(5_000);
        swarm.hook = Box::new(move |from, to, bytes| match message::decode(&bytes) {
            Ok(Repair::Slots(mut slots)) if (from, to) == (2, 1) => {
                match lie {
                    0 => drop(slots.remove(0)),
                    1 => slots[0].hlc.0 += 1,
                    _ => {
                        let mut op = Op::read(&slots[0].op).expect("a sound slot");
                        op.body = Body::Delete;
                        slots[0].op = Bytes(codec::encode(&op));
                    }
                }
                Some(message::encode(&Repair::Slots(slots)))
            }
            _ => Some(bytes),
        });
        swarm.connect(2, 1);
        assert_eq!(swarm.get(1, "a"), None, "lie {lie} is not shown");
        let dropped = |f: &Fault| matches!(f, Fault::Peer { blame: Blame::Nobody, .. });
        assert!(swarm.nodes[1].faults.iter().any(dropped), "lie {lie} is noticed");
        swarm.connect(0, 1);
        swarm.pass(30_000);
        assert_eq!(swarm.get(1, "a").as_deref(), Some("1"));
        assert!(swarm.equal());
    }
}

#[test]
fn slots_set_aside_that_nobody_can_prove_do_not_hold_a_log_hostage() {
    let mut swarm = Swarm::new(3);
    swarm.put(0, "a", "1");
    swarm.connect(0, 2);
    swarm.pass(5_000);
    // Node 2 invents a slot far ahead and never ends the log.
    swarm.hook = Box::new(|from, to, bytes| match message::decode(&bytes) {
        Ok(Repair::Slots(mut slots)) if (from, to) == (2, 1) => {
            slots.last_mut().expect("no chunk is empty").seq = 1 << 60;
            Some(message::encode(&Repair::Slots(slots)))
        }
        Ok(Repair::End(_)) if (from, to) == (2, 1) => None,
        _ => Some(bytes),
    });
    swarm.connect(2, 1);
    swarm.disconnect_all(1);
    assert!(swarm.nodes[1].engine.logs().iter().any(|log| log.staged > 0));
    swarm.connect(0, 1);
    swarm.pass(30_000);
    assert_eq!(swarm.get(1, "a").as_deref(), Some("1"));
    assert!(!swarm.damned());
}

#[test]
fn gossip_that_overtakes_a_session_is_no_fork_and_leaves_no_junk() {
    let mut swarm = Swarm::new(2);
    swarm.put(0, "k", "1");
    swarm.connect(0, 1);
    swarm.pass(10_000);
    swarm.put(0, "k", "2");
    swarm.put(0, "k", "3");
    let messages = swarm.nodes[0].published.clone();
    // The digest is on its way while gossip brings what the answer will bring as well.
    let held = Rc::new(Cell::new(Vec::new()));
    let keep = Rc::clone(&held);
    swarm.hook = Box::new(move |from, _, bytes| match message::decode(&bytes) {
        Ok(Repair::Start(_)) if from == 0 => {
            let mut all = keep.take();
            all.push(bytes);
            keep.set(all);
            None
        }
        _ => Some(bytes),
    });
    swarm.pass(9_000);
    assert!(!held.take().is_empty());
    swarm.hand_gossip(1, 0, messages[1].clone());
    swarm.hand_gossip(1, 0, messages[2].clone());
    swarm.hook = Box::new(|_, _, bytes| Some(bytes));
    swarm.pass(60_000);
    assert!(swarm.equal());
    assert!(swarm.nodes[1].engine.logs().iter().all(|log| !log.forked));
    assert!(!swarm.damned());
}

#[test]
fn a_restored_copy_goes_on_in_a_new_epoch_and_nothing_is_lost() {
    let mut swarm = Swarm::new(2);
    swarm.put(0, "a", "1");
    let copy = swarm.nodes[0].disk.0.borrow().clone();
    swarm.put(0, "b", "2");
    swarm.connect(0, 1);
    swarm.pass(5_000);
    swarm.disconnect_all(0);
    let old = swarm.nodes[0].engine.own_log();
    *swarm.nodes[0].disk.0.borrow_mut() = copy;
    swarm.restart(0);
    assert_eq!(swarm.get(0, "b"), None);
    swarm.connect(0, 1);
    swarm.pass(5_000);
    assert_eq!(swarm.get(0, "b").as_deref(), Some("2"));
    swarm.put(0, "c", "3");
    assert_ne!(swarm.nodes[0].engine.own_log(), old);
    swarm.pass(10_000);
    assert!(swarm.equal());
    assert_eq!(swarm.get(1, "b").as_deref(), Some("2"));
    // A log that was left once is left for good.
    swarm.restart(0);
    swarm.put(0, "d", "4");
    assert_ne!(swarm.nodes[0].engine.own_log(), old);
}

#[test]
fn a_log_left_before_the_first_write_elsewhere_stays_left_over_a_restart() {
    let mut swarm = Swarm::new(2);
    swarm.put(0, "a", "1");
    let copy = swarm.nodes[0].disk.0.borrow().clone();
    swarm.put(0, "b", "2");
    swarm.connect(0, 1);
    swarm.pass(5_000);
    swarm.disconnect_all(0);
    let old = swarm.nodes[0].engine.own_log();
    *swarm.nodes[0].disk.0.borrow_mut() = copy;
    swarm.restart(0);
    swarm.connect(0, 1);
    swarm.pass(5_000);
    swarm.restart(0);
    swarm.put(0, "c", "3");
    assert_ne!(swarm.nodes[0].engine.own_log(), old);
}

#[test]
fn a_liar_cannot_make_a_member_open_epoch_after_epoch() {
    let mut swarm = Swarm::new(2);
    swarm.connect(0, 1);
    let victim = swarm.nodes[0].id;
    swarm.hook = Box::new(move |from, _, bytes| match message::decode(&bytes) {
        Ok(Repair::Digest(mut digest)) if from == 1 => {
            for entry in digest.entries.iter_mut().filter(|e| e.log.author == victim) {
                entry.seq += 1_000;
                entry.head = Hash8::new([1; 8]);
            }
            Some(message::encode(&Repair::Digest(digest)))
        }
        _ => Some(bytes),
    });
    for i in 0..12 {
        swarm.put(0, &format!("k{i}"), "v");
        swarm.put(1, &format!("l{i}"), "v");
        swarm.pass(9_000);
    }
    let epochs =
        swarm.nodes[0].engine.heads().iter().filter(|(b, _)| b.log.author == victim).count();
    assert!(epochs <= 2, "{epochs} epochs");
}

#[test]
fn a_runaway_clock_opens_a_new_epoch_once_corrected() {
    let mut swarm = Swarm::new(2);
    let right = swarm.wall;
    swarm.wall += 365 * 86_400_000;
    swarm.put(0, "k", "from the future");
    let old = swarm.nodes[0].engine.own_log();
    swarm.wall = right;
    swarm.put(0, "k", "corrected");
    assert_ne!(swarm.nodes[0].engine.own_log(), old);
    swarm.connect(0, 1);
    swarm.pass(5_000);
    assert_eq!(swarm.get(1, "k").as_deref(), Some("corrected"));
    let own = swarm.nodes[0].engine.own_log();
    let stamp =
        swarm.nodes[1].engine.logs().iter().find(|log| log.branch.log == own).map(|l| l.stamp);
    assert!(stamp.is_some_and(|stamp| stamp <= right + 10_000));
}

/// Signs a commit's header anew after a change.
fn resign(
    swarm: &Swarm,
    bytes: &[u8],
    key: &[u8; 32],
    change: impl Fn(&mut commit::Header),
) -> Vec<u8> {
    let Ok(Gossip::Commit(commit)) = message::decode(bytes) else { panic!("a small commit") };
    let swarm = swarm.nodes[0].engine.roster().swarm();
    let (header, ops) = commit::unpack(&commit, swarm).expect("header and operations");
    let mut claim = SignedHeader::decode(&header).expect("our own header").claim().clone();
    change(&mut claim);
    let body = codec::encode(&claim);
    let sig = DeviceKey::from_seed(key).sign(Domain::Commit, &body);
    let sealed = codec::encode(&(Bytes(body), sig));
    message::encode(&Gossip::Commit(Bytes(commit::pack(&sealed, ops).expect("a header"))))
}

#[test]
fn an_authors_wrong_root_freezes_that_log_only_and_blames_nobody() {
    let mut swarm = Swarm::new(3);
    swarm.put(1, "a", "1");
    let wrong = resign(&swarm, &swarm.nodes[1].published[0], &swarm::key(1), |h| {
        h.live_root = Hash::new([5; 32]);
    });
    assert_eq!(swarm.hand_gossip(0, 2, wrong), Verdict::Accept);
    assert!(swarm.nodes[0].faults.is_empty());
    assert!(swarm.nodes[0].engine.logs().iter().any(|log| log.frozen.is_some()));
    swarm.restart(0);
    assert!(swarm.nodes[0].engine.logs().iter().any(|log| log.frozen.is_some()));
    swarm.put(2, "b", "2");
    let other = swarm.nodes[2].published[0].clone();
    assert_eq!(swarm.hand_gossip(0, 2, other), Verdict::Accept);
    assert_eq!(swarm.get(0, "b").as_deref(), Some("2"));
    assert_eq!(swarm.get(0, "a"), None);
}

#[test]
fn a_fork_is_noted_and_passed_on_and_removes_nothing() {
    let mut swarm = Swarm::new(2);
    swarm.put(1, "k", "v");
    let first = swarm.nodes[1].published[0].clone();
    let twin = resign(&swarm, &first, &swarm::key(1), |h| h.hlc.0 += 1);
    swarm.hand_gossip(0, 1, first);
    assert_eq!(swarm.hand_gossip(0, 1, twin), Verdict::Accept);
    assert!(swarm.nodes[0].engine.logs().iter().any(|log| log.forked));
    assert_eq!(swarm.get(0, "k").as_deref(), Some("v"));
    assert!(swarm.nodes[0].faults.is_empty());
    swarm.restart(0);
    assert!(swarm.nodes[0].engine.logs().iter().any(|log| log.forked));
}

#[test]
fn no_flipped_bit_of_a_commit_is_accepted() {
    let mut swarm = Swarm::new(2);
    swarm.write(1, vec![put("a", "1"), put("b", "2")]);
    let genuine = swarm.nodes[1].published[0].clone();
    for at in 0..genuine.len() {
        for bit in 0..8 {
            let mut bytes = genuine.clone();
            bytes[at] ^= 1 << bit;
            let verdict = swarm.hand_gossip(0, 1, bytes);
            assert_ne!(verdict, Verdict::Accept, "bit {bit} of byte {at}");
        }
    }
    assert_eq!(swarm.get(0, "a"), None);
    assert_eq!(swarm.hand_gossip(0, 1, genuine), Verdict::Accept);
}

#[test]
fn a_write_is_acknowledged_and_published_after_it_is_made_durable() {
    let mut swarm = Swarm::new(1);
    swarm.put(0, "k", "v");
    let place = |wanted: fn(&Output) -> bool| swarm.nodes[0].log.iter().position(wanted);
    let persist = place(|o| matches!(o, Output::Persist(_)));
    let written = place(|o| matches!(o, Output::Written(..)));
    assert!(persist.expect("made durable") < written.expect("acknowledged"));
}

#[test]
fn spurious_inputs_are_harmless() {
    let mut swarm = Swarm::new(2);
    let peer = swarm.nodes[1].id;
    let session = swarmkv_protocol::io::SessionId(77);
    for input in [
        Input::Tick,
        Input::Commit,
        Input::Disconnected(peer),
        Input::SessionClosed(session),
        Input::SessionReady(session),
        Input::SessionFrame(session, vec![1, 2, 3]),
        Input::Answered(peer, vec![0xff]),
    ] {
        swarm.input(0, input);
    }
    assert!(swarm.nodes[0].faults.is_empty());
}
