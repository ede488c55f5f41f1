//! Repair rounds: rare while all are equal and nothing moves, at the full pace as soon as something does.

use std::cell::RefCell;
use std::rc::Rc;

use swarmkv_protocol::io::{Input, SessionId};
use swarmkv_protocol::limits::{GROUP_OPS, REPAIR_EVERY_MS};

use crate::swarm::{Swarm, put};

fn pulls(swarm: &Swarm) -> u64 {
    swarm.nodes.iter().map(|node| node.engine.counters().pulls).sum()
}

#[test]
fn rounds_grow_calm_and_a_write_ends_the_calm() {
    let mut swarm = Swarm::new(3);
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        swarm.connect(a, b);
    }
    swarm.put(0, "k", "v");
    swarm.pass(300_000);
    assert!(swarm.equal());
    let before = pulls(&swarm);
    swarm.pass(600_000);
    let calm = pulls(&swarm) - before;
    // At the full pace it would be 150 each.
    assert!((3..60).contains(&calm), "{calm} in ten minutes");

    // Nothing is gossiped here: only rounds can bring it.
    for _ in 0..20 {
        swarm.put(1, "k", "w");
        swarm.pass(4 * REPAIR_EVERY_MS);
        assert!(swarm.equal());
        swarm.pass(300_000);
    }
}

#[test]
fn an_answer_to_what_was_asked_before_a_write_says_nothing_of_the_write() {
    let mut swarm = Swarm::new(2);
    swarm.connect(0, 1);
    swarm.pass(1_000);
    let held: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let keep = Rc::clone(&held);
    swarm.hook = Box::new(move |from, _, bytes| {
        if from == 1 {
            keep.borrow_mut().push(bytes);
            return None;
        }
        Some(bytes)
    });
    while held.borrow().is_empty() {
        swarm.pass(100);
    }
    swarm.put(0, "k", "v");
    let behind =
        |swarm: &Swarm| swarm.nodes[0].engine.peers().iter().map(|peer| peer.behind).sum::<u64>();
    assert_eq!(behind(&swarm), 1);
    for bytes in held.take() {
        // Whichever session it belongs to: the others do not know it.
        for session in (0..200).step_by(2).map(SessionId) {
            swarm.input(0, Input::SessionFrame(session, bytes.clone()));
        }
    }
    assert_eq!(behind(&swarm), 1, "it has not been told of the write");
}

#[test]
fn a_group_is_full_when_nothing_more_would_share_its_commit() {
    let mut swarm = Swarm::new(1);
    for n in 0..GROUP_OPS {
        assert!(!swarm.nodes[0].engine.has_full_group(), "{n} are waiting");
        let token = swarm.token();
        swarm.input(0, Input::Write(token, vec![put(&format!("k{n}"), "v")]));
    }
    assert!(swarm.nodes[0].engine.has_full_group());
    swarm.input(0, Input::Commit);
    assert!(!swarm.nodes[0].engine.has_queued_writes());
    assert_eq!(swarm.nodes[0].engine.counters().commits_signed, 1);
}
