//! Forks: an author that signed two histories of one log. Nothing is taken away, and every replica that
//! knows both shows the same.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use swarmkv_protocol::id::{LogId, Version};
use swarmkv_protocol::io::Verdict;
use swarmkv_protocol::limits::MAX_BRANCHES;
use swarmkv_protocol::op::Body;
use swarmkv_protocol::store::Store as _;
use swarmkv_protocol::view::{Seen, View};

use crate::swarm;
use crate::swarm::{Disk, Swarm, key, put};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

fn copy(swarm: &Swarm, n: usize) -> Disk {
    Disk(Rc::new(RefCell::new(swarm.nodes[n].disk.0.borrow().clone())))
}

/// The process is replaced by one on another disk that does not notice it.
fn go_on_with(swarm: &mut Swarm, n: usize, disk: &Disk) {
    swarm.disconnect_all(n);
    let disk = Disk(Rc::new(RefCell::new(disk.0.borrow().clone())));
    swarm.nodes[n] = swarm.open(key(n), disk, false);
}

/// Hands everything that node `n` has published to another, as if by gossip.
fn hand_all(swarm: &mut Swarm, n: usize, to: usize) {
    for message in swarm.nodes[n].published.clone() {
        assert_ne!(swarm.hand_gossip(to, n, message), Verdict::Reject);
    }
}

fn histories(swarm: &Swarm, n: usize, log: LogId) -> usize {
    swarm.nodes[n].engine.heads().branches(log).count()
}

fn siblings(swarm: &Swarm, n: usize, key: &str) -> BTreeSet<String> {
    let heads = swarm.nodes[n].engine.heads();
    let slots = swarm.nodes[n].disk.slots(&swarm::cell(key)).expect("memory does not fail");
    let view = View::merge(&slots, |branch| heads.of(branch));
    let view = view.expect("slots are sound");
    let text = |seen: &Seen| match &seen.slot.op.body {
        Body::Put(value) => String::from_utf8_lossy(value).into_owned(),
        other => format!("{other:?}"),
    };
    view.siblings().map(text).collect()
}

/// A's log is forked: B knows one history, C the other, A has gone on with C's.
fn forked(common: usize, by_gossip: bool) -> (Swarm, LogId) {
    let mut swarm = Swarm::new(3);
    for i in 0..common {
        swarm.put(A, &format!("common {i}"), "old");
    }
    let before = copy(&swarm, A);
    let log = swarm.nodes[A].engine.own_log();
    let old = swarm.nodes[A].published.clone();
    swarm.put(A, "both", "from x");
    swarm.put(A, "x", "1");
    swarm.put(A, "x", "2");
    give(&mut swarm, B, by_gossip);
    go_on_with(&mut swarm, A, &before);
    swarm.pass(1_000);
    swarm.put(A, "both", "from y");
    swarm.put(A, "y", "1");
    let new = std::mem::take(&mut swarm.nodes[A].published);
    swarm.nodes[A].published = [old, new].concat();
    give(&mut swarm, C, by_gossip);
    (swarm, log)
}

fn give(swarm: &mut Swarm, to: usize, by_gossip: bool) {
    if by_gossip {
        hand_all(swarm, A, to);
    } else {
        swarm.connect(A, to);
        swarm.pass(5_000);
        swarm.disconnect_all(to);
    }
}

fn assert_both_everywhere(swarm: &Swarm, log: LogId) {
    assert!(swarm.equal(), "all say the same");
    for n in 0..swarm.nodes.len() {
        assert_eq!(histories(swarm, n, log), 2, "node {n} keeps two histories");
        assert_eq!(swarm.get(n, "x").as_deref(), Some("2"), "node {n}");
        assert_eq!(swarm.get(n, "y").as_deref(), Some("1"), "node {n}");
        assert_eq!(siblings(swarm, n, "both").len(), 2, "node {n}");
        assert_eq!(swarm.get(n, "both").as_deref(), Some("from y"), "node {n}: the newer stamp");
        assert!(swarm.nodes[n].engine.logs().iter().any(|l| l.branch.log == log && l.forked));
    }
    assert!(!swarm.damned());
}

#[test]
fn both_histories_of_a_forked_log_are_kept_and_merged_everywhere() {
    for by_gossip in [true, false] {
        for common in [1, 4] {
            let (mut swarm, log) = forked(common, by_gossip);
            swarm.connect(B, C);
            swarm.pass(30_000);
            swarm.connect(A, C);
            swarm.pass(60_000);
            swarm.connect(A, B);
            swarm.pass(60_000);
            assert_both_everywhere(&swarm, log);
            assert_eq!(siblings(&swarm, B, "common 0").len(), usize::from(common > 0));
        }
    }
}

#[test]
fn the_author_of_a_forked_log_goes_on_in_a_new_epoch_and_its_next_write_settles_the_key() {
    let (mut swarm, log) = forked(3, true);
    swarm.connect(A, B);
    swarm.pass(60_000);
    assert_eq!(histories(&swarm, A, log), 2);
    swarm.put(A, "both", "settled");
    assert_ne!(swarm.nodes[A].engine.own_log(), log);
    swarm.connect(B, C);
    swarm.pass(60_000);
    for n in [A, B, C] {
        assert_eq!(siblings(&swarm, n, "both").len(), 1, "node {n}");
    }
    swarm.restart(A);
    swarm.put(A, "after", "a restart");
    assert_ne!(swarm.nodes[A].engine.own_log(), log);
    assert!(swarm.nodes[A].engine.caught_up());
}

#[test]
fn a_fork_survives_a_restart_and_reaches_a_newcomer_whole() {
    let (mut swarm, log) = forked(2, true);
    swarm.connect(B, C);
    swarm.pass(30_000);
    swarm.restart(C);
    let (roster, disk) = (swarm.nodes[C].disk.0.borrow().recover().statements, Disk::default());
    let named = |bytes: &swarmkv_protocol::codec::Bytes| {
        use swarmkv_protocol::crypto::{Domain, hash};
        hash(Domain::StatementName, &[bytes])
    };
    disk.0.borrow_mut().apply(
        roster
            .into_iter()
            .map(|bytes| swarmkv_protocol::store::Write::Statement { name: named(&bytes), bytes })
            .collect(),
    );
    swarm.nodes[A] = swarm.open(key(A), disk, true);
    swarm.connect(A, C);
    swarm.pass(30_000);
    assert_both_everywhere(&swarm, log);
}

#[test]
fn a_longer_history_never_replaces_a_shorter_one_that_it_happens_to_cover() {
    let mut swarm = Swarm::new(3);
    swarm.put(A, "k", "old");
    let before = copy(&swarm, A);
    let log = swarm.nodes[A].engine.own_log();
    for i in 0..6 {
        swarm.put(A, "k", &format!("x {i}"));
    }
    give(&mut swarm, B, false);
    go_on_with(&mut swarm, A, &before);
    swarm.pass(1_000);
    // Everything that this history wrote, the other wrote as well, and later in its log.
    swarm.put(A, "k", "y");
    give(&mut swarm, C, false);
    swarm.connect(B, C);
    swarm.pass(60_000);
    for n in [B, C] {
        assert_eq!(histories(&swarm, n, log), 2, "node {n}");
        assert_eq!(siblings(&swarm, n, "k").len(), 2, "node {n}");
    }
}

#[test]
fn two_places_of_one_history_are_not_taken_for_two_histories() {
    // Neither has the header at the other's place: both jumped there by repair.
    let mut swarm = Swarm::new(4);
    swarm.put(A, "a", "1");
    swarm.put(A, "b", "1");
    give(&mut swarm, B, false);
    swarm.put(A, "b", "2");
    swarm.put(A, "c", "2");
    give(&mut swarm, C, false);
    let log = swarm.nodes[A].engine.own_log();
    swarm.connect(B, C);
    swarm.pass(30_000);
    swarm.connect(3, B);
    swarm.pass(30_000);
    for n in [A, B, C, 3] {
        assert_eq!(histories(&swarm, n, log), 1, "node {n}");
    }
    assert!(swarm.equal());
    assert!(swarm.nodes.iter().all(|node| node.faults.is_empty()));
}

#[test]
fn a_whole_history_that_turns_out_to_be_older_or_newer_replaces_nothing_or_all() {
    // B has both places of one history as if they were two: it has to find out by what they hold.
    let (mut swarm, log) = forked(3, false);
    swarm.connect(B, C);
    swarm.pass(30_000);
    // A, with the history that C knows, goes on in it before it hears of the other.
    swarm.pass(1_000);
    swarm.put(A, "y", "2");
    swarm.put(A, "z", "1");
    swarm.connect(A, B);
    swarm.pass(60_000);
    for n in [A, B, C] {
        assert_eq!(histories(&swarm, n, log), 2, "node {n}");
        assert_eq!(swarm.get(n, "y").as_deref(), Some("2"), "node {n}");
        assert_eq!(swarm.get(n, "x").as_deref(), Some("2"), "node {n}");
    }
    assert!(swarm.equal());
}

#[test]
fn an_author_that_forks_for_ever_leaves_a_bounded_number_and_the_same_ones_everywhere() {
    let count = MAX_BRANCHES + 3;
    let mut swarm = Swarm::new(5);
    swarm.put(A, "k", "base");
    let before = copy(&swarm, A);
    let log = swarm.nodes[A].engine.own_log();
    let mut written: Vec<Version> = Vec::new();
    for i in 0..count {
        go_on_with(&mut swarm, A, &before);
        swarm.pass(10);
        written.extend(swarm.write(A, vec![put(&format!("own {i}"), "1")]));
        give(&mut swarm, B + i % 4, i % 2 == 0);
    }
    assert_eq!(written.len(), count);
    for _ in 0..3 {
        for (a, b) in [(1, 2), (3, 4), (2, 3), (1, 4)] {
            swarm.connect(a, b);
            swarm.pass(120_000);
            swarm.disconnect_all(a);
            swarm.disconnect_all(b);
        }
    }
    let state = swarm.nodes[B].engine.state_hash();
    for n in 1..5 {
        assert!(histories(&swarm, n, log) <= MAX_BRANCHES, "node {n}");
        assert_eq!(swarm.nodes[n].engine.state_hash(), state, "node {n}");
    }
    assert!(!swarm.damned());
}
